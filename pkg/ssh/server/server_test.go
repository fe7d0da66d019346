// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/process"
)

// key returns one of several keys.
func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

// example returns settings that log in ada with key 1.
func example(t *testing.T) Settings {
	t.Helper()
	return Settings{
		User: "ada", ClientKey: key(1).Public().(ed25519.PublicKey), HostKey: key(2), Banner: "SSH-2.0-Brolga_test",
		Env: []string{"PATH=/usr/bin:/bin", "SHELL=/no/such", "OF_TASK=a b"}, Dir: t.TempDir(),
		Connections: 8, Sessions: 8, LoginTime: 10 * time.Second,
	}
}

// serve runs a server and returns its address.
func serve(t *testing.T, s Settings) (address string, stop func()) {
	t.Helper()
	server, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(func() {
		l.Close()
		server.Stop()
	})
	return l.Addr().String(), server.Stop
}

func config(user string, auth ...ssh.AuthMethod) *ssh.ClientConfig {
	host, _ := ssh.NewSignerFromKey(key(2))
	return &ssh.ClientConfig{User: user, Auth: auth, HostKeyCallback: ssh.FixedHostKey(host.PublicKey()), Timeout: 10 * time.Second}
}

func with(n byte) ssh.AuthMethod {
	signer, _ := ssh.NewSignerFromKey(key(n))
	return ssh.PublicKeys(signer)
}

func login(t *testing.T, address string) *ssh.Client {
	t.Helper()
	c, err := ssh.Dial("tcp", address, config("ada", with(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newSession(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLogin checks who gets in.
func TestLogin(t *testing.T) {
	address, _ := serve(t, example(t))
	for _, tt := range []struct {
		name string
		with *ssh.ClientConfig
		ok   bool
	}{
		{"the user with the step's key", config("ada", with(1)), true},
		{"several keys", config("ada", with(3), with(1)), false}, // x/crypto takes one method of a kind
		{"another key", config("ada", with(3)), false},
		{"another user", config("root", with(1)), false},
		{"no user", config("", with(1)), false},
		{"a password", config("ada", ssh.Password("ada")), false},
		{"answers to questions", config("ada", ssh.KeyboardInteractive(func(_, _ string, q []string, _ []bool) ([]string, error) { return make([]string, len(q)), nil })), false},
		{"nothing", config("ada"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ssh.Dial("tcp", address, tt.with)
			if (err == nil) != tt.ok {
				t.Errorf("login: %v; want success %v", err, tt.ok)
			}
			if err == nil {
				c.Close()
			}
		})
	}
}

// TestExec checks what a command gets and how its end is told.
func TestExec(t *testing.T) {
	s := example(t)
	address, _ := serve(t, s)
	c := login(t, address)
	for _, tt := range []struct {
		command, stdin      string
		stdout, stderr, end string
	}{
		{"echo out; echo err >&2", "", "out\n", "err\n", ""},
		{"cat", "input\n", "input\n", "", ""},
		{"exit 7", "", "", "", "Process exited with status 7"},
		{"kill -9 $$", "", "", "", "Process exited with status 137 from signal \"KILL\". Reason was: \"killed\""},
		{"/no/such", "", "", "not found", "Process exited with status 127"},
		{`echo "$OF_TASK"; pwd; umask >/dev/null`, "", "a b\n" + s.Dir + "\n", "", ""},
		{"echo $SSH_CONNECTION | grep -c '^127.0.0.1 [0-9]* 127.0.0.1 [0-9]*$'", "", "1\n", "", ""},
		{"env | grep -E '^(HOME|SSH_CLIENT|SSH_TTY)='", "", "", "", "Process exited with status 1"},
		{"tty", "", "not a tty\n", "", "Process exited with status 1"},
		{"ps -o sid= -p $$ | grep -c \"^ *$$\\$\"", "", "1\n", "", ""},
		{"ls -l /proc/$$/fd | grep socket", "", "", "", "Process exited with status 1"},
		{"", "echo from a shell; exit 3", "from a shell\n", "", "Process exited with status 3"},
	} {
		t.Run(tt.command, func(t *testing.T) {
			x := newSession(t, c)
			defer x.Close()
			var stdout, stderr bytes.Buffer
			x.Stdin, x.Stdout, x.Stderr = strings.NewReader(tt.stdin), &stdout, &stderr
			start := func() error { return x.Start(tt.command) }
			if tt.command == "" {
				start = x.Shell
			}
			err := start()
			if err == nil {
				err = x.Wait()
			}
			if got := fmt.Sprint(err); got != tt.end && !(err == nil && tt.end == "") {
				t.Errorf("it ends with %v; want %q", err, tt.end)
			}
			if stdout.String() != tt.stdout || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("it writes %q and %q; want %q and %q", stdout.String(), stderr.String(), tt.stdout, tt.stderr)
			}
		})
	}
}

// TestVariables checks that a client can set variables, within limits.
func TestVariables(t *testing.T) {
	address, _ := serve(t, example(t))
	x := newSession(t, login(t, address))
	for _, v := range [][2]string{{"LANG", "C"}, {"OF_TASK", "other"}} {
		if err := x.Setenv(v[0], v[1]); err != nil {
			t.Errorf("Setenv(%q) = %v", v[0], err)
		}
	}
	for _, name := range []string{"", "A=B", "A\x00B"} {
		if err := x.Setenv(name, "x"); err == nil {
			t.Errorf("Setenv(%q) succeeds", name)
		}
	}
	refused := false
	for i := range 2 * maxEnv {
		refused = refused || x.Setenv(fmt.Sprint("V", i), "x") != nil
	}
	if !refused {
		t.Error("there is no limit")
	}
	out, err := x.Output("echo $LANG $OF_TASK")
	if err != nil || string(out) != "C other\n" {
		t.Errorf("the command has %q, %v", out, err)
	}
}

// TestBulk checks that nothing is lost in either direction, nor twice at a time.
func TestBulk(t *testing.T) {
	address, _ := serve(t, example(t))
	c := login(t, address)
	text := bytes.Repeat([]byte("0123456789abcdef"), 640<<10) // 10 MiB
	ends := make(chan error)
	for range 2 {
		x := newSession(t, c)
		var got bytes.Buffer
		x.Stdin, x.Stdout = bytes.NewReader(text), &got
		go func() {
			err := x.Run("cat")
			if err == nil && !bytes.Equal(got.Bytes(), text) {
				err = fmt.Errorf("%d of %d bytes come back", got.Len(), len(text))
			}
			ends <- err
		}()
	}
	for range 2 {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
}

// TestTerminal checks that a session can have a terminal of the client's size.
func TestTerminal(t *testing.T) {
	address, _ := serve(t, example(t))
	x := newSession(t, login(t, address))
	if err := x.RequestPty("vt220", 33, 111, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	stdin, err := x.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out output
	x.Stdout = &out
	if err := x.Start(`stty -echo; stty size; echo $TERM $SSH_TTY; tty; trap 'stty size; exit 4' WINCH; echo ready; while :; do read -r line; done`); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "ready")
	if err := x.WindowChange(44, 122); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "44 122")
	err = x.Wait()
	stdin.Close()
	text := out.String()
	var status *ssh.ExitError
	if !errors.As(err, &status) || status.ExitStatus() != 4 || !strings.Contains(text, "33 111\r\nvt220 /dev/pts/") || strings.Count(text, "/dev/pts/") != 2 {
		t.Errorf("the terminal shows %q, and it ends with %v", text, err)
	}
}

// TestSignal checks that signals reach the command, with its children.
func TestSignal(t *testing.T) {
	address, _ := serve(t, example(t))
	x := newSession(t, login(t, address))
	var out output
	x.Stdout = &out
	if err := x.Start("trap 'echo got it; exit 5' USR1; echo ready; sleep 60 >/dev/null 2>&1 & wait"); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "ready")
	if err := x.Signal(ssh.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	var status *ssh.ExitError
	if err := x.Wait(); !errors.As(err, &status) || status.ExitStatus() != 5 || !strings.Contains(out.String(), "got it") {
		t.Errorf("it writes %q and ends with %v", out.String(), err)
	}
}

// output is a buffer that can be waited for.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) waitFor(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the output "+text, func() bool { return strings.Contains(o.String(), text) })
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no sign of %s", what)
		}
	}
}

// TestRefusals checks that there is nothing but sessions.
func TestRefusals(t *testing.T) {
	address, _ := serve(t, example(t))
	c := login(t, address)
	if conn, err := c.Dial("tcp", address); err == nil || !strings.Contains(err.Error(), "not allowed on this cluster") {
		t.Errorf("forwarding to elsewhere: %v, %v", conn, err)
	}
	if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Errorf("listening for the client: %v", l.Addr())
	}
	if l, err := c.ListenUnix(filepath.Join(t.TempDir(), "s")); err == nil {
		t.Errorf("listening on a socket for the client: %v", l.Addr())
	}
	if _, _, err := c.OpenChannel("direct-streamlocal@openssh.com", nil); err == nil {
		t.Error("a channel to a socket")
	}
	x := newSession(t, c)
	for _, name := range []string{"x11-req", "auth-agent-req@openssh.com", "no-such"} {
		if ok, err := x.SendRequest(name, true, nil); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
	if err := x.RequestSubsystem("no-such"); err == nil {
		t.Error("any subsystem")
	}
	if out, err := x.Output("echo still"); err != nil || string(out) != "still\n" {
		t.Errorf("the session afterwards: %q, %v", out, err)
	}
}

// TestForwarding checks that a site can allow connections to elsewhere.
func TestForwarding(t *testing.T) {
	s := example(t)
	s.Forwarding = true
	address, _ := serve(t, s)
	conn, err := login(t, address).Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text := make([]byte, len(s.Banner))
	if _, err := io.ReadFull(conn, text); err != nil || string(text) != s.Banner {
		t.Errorf("through the server comes %q, %v", text, err)
	}
}

// TestLimits checks that those who are in do not become too many.
func TestLimits(t *testing.T) {
	s := example(t)
	s.Connections, s.Sessions = 2, 3
	address, _ := serve(t, s)
	first, second := login(t, address), login(t, address)
	for _, c := range []*ssh.Client{first, second} { // they count once the server has seen them
		if err := newSession(t, c).Run("true"); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := ssh.Dial("tcp", address, config("ada", with(1))); err == nil {
		if _, err := c.NewSession(); err == nil {
			t.Error("a third connection has a session")
		}
	}
	var open []*ssh.Session
	for i := range 4 {
		c := []*ssh.Client{first, second}[i%2]
		x, err := c.NewSession()
		if (err == nil) != (i < 3) {
			t.Errorf("session %d: %v", i, err)
		}
		open = append(open, x)
	}
	open[0].Close()
	eventually(t, "room for a session", func() bool {
		x, err := second.NewSession()
		return err == nil && x.Run("true") == nil
	})
	second.Close()
	eventually(t, "room for a connection", func() bool {
		c, err := ssh.Dial("tcp", address, config("ada", with(1)))
		if err != nil {
			return false
		}
		defer c.Close()
		x, err := c.NewSession()
		return err == nil && x.Close() == nil
	})
}

// TestFlood checks that clients that do not log in keep nobody out: the newest stay.
func TestFlood(t *testing.T) {
	s := example(t)
	s.LoginTime = time.Minute
	address, _ := serve(t, s)
	all := strangers(t, address, 3*maxStrangers)
	if out, err := newSession(t, login(t, address)).Output("echo in"); err != nil || string(out) != "in\n" {
		t.Errorf("the user among them: %q, %v", out, err)
	}
	expectDropped(t, all[:2*maxStrangers])
}

// TestFloodDuringLogin checks that newer strangers do not interrupt a login.
func TestFloodDuringLogin(t *testing.T) {
	s := example(t)
	s.LoginTime = time.Minute
	address, _ := serve(t, s)
	slow := strangers(t, address, 1)[0]
	strangers(t, address, 64)
	c, _, _, err := ssh.NewClientConn(slow, address, config("ada", with(1)))
	if err != nil {
		t.Fatalf("log in while 64 strangers come: %v", err)
	}
	c.Close()
}

// TestLoginTime checks that who does not log in is not there for long.
func TestLoginTime(t *testing.T) {
	s := example(t)
	s.LoginTime = 200 * time.Millisecond
	address, _ := serve(t, s)
	expectDropped(t, strangers(t, address, 2))
}

// strangers returns connections that say nothing.
func strangers(t *testing.T, address string, count int) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range count {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		all = append(all, conn)
	}
	return all
}

func expectDropped(t *testing.T, all []net.Conn) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for _, conn := range all {
		_ = conn.SetReadDeadline(end)
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a stranger is still connected")
		}
	}
}

// pidOf reads a number that a command writes.
func pidOf(t *testing.T, path string) int {
	t.Helper()
	pid := 0
	eventually(t, path, func() bool {
		text, err := os.ReadFile(path)
		n, _ := fmt.Sscan(string(text), &pid)
		return err == nil && n == 1 && strings.HasSuffix(string(text), "\n")
	})
	return pid
}

func isAlive(pid int) bool {
	p, err := process.Find(pid)
	return err == nil && !p.IsZombie
}

// TestDisconnect checks that a command ends with its connection, and that what a
// finished one has left behind does not.
func TestDisconnect(t *testing.T) {
	s := example(t)
	address, stop := serve(t, s)
	c := login(t, address)
	if err := newSession(t, c).Run("sleep 600 >/dev/null 2>&1 </dev/null & echo $! >left"); err != nil {
		t.Fatal(err)
	}
	if err := newSession(t, c).Start("trap '' HUP TERM; sleep 600 & echo $! >child; echo $$ >own; wait"); err != nil {
		t.Fatal(err)
	}
	left, child, own := pidOf(t, s.Dir+"/left"), pidOf(t, s.Dir+"/child"), pidOf(t, s.Dir+"/own")
	c.Close()
	eventually(t, "the end of the command", func() bool { return !isAlive(own) && !isAlive(child) })
	if !isAlive(left) {
		t.Error("what a command has left behind ended with its connection")
	}
	stop()
	if isAlive(left) {
		t.Error("what a command has left behind is alive after the end")
	}
	eventually(t, "the reaper", func() bool { return unix.Kill(left, 0) != nil })
}

// TestStop checks that nothing escapes, whatever it does to its ancestry.
func TestStop(t *testing.T) {
	s := example(t)
	address, stop := serve(t, s)
	x := newSession(t, login(t, address))
	if err := x.Start("setsid sh -c 'trap \"\" HUP TERM; (setsid sleep 600 & echo $! >daemon); sleep 600' & echo $! >child; wait"); err != nil {
		t.Fatal(err)
	}
	daemon, child := pidOf(t, s.Dir+"/daemon"), pidOf(t, s.Dir+"/child")
	stop()
	if isAlive(daemon) || isAlive(child) {
		t.Error("something is alive after the end")
	}
}

// TestFiles checks the subsystem for transfers.
func TestFiles(t *testing.T) {
	s := example(t)
	address, _ := serve(t, s)
	c, err := sftp.NewClient(login(t, address))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.Create("relative")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("text")); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(s.Dir, "relative"))
	if wd, wdErr := c.Getwd(); err != nil || string(got) != "text" || wd != s.Dir || wdErr != nil {
		t.Errorf("the file has %q, %v; the directory is %q, %v", got, err, wd, wdErr)
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string]string{
		"/app":                  "[/app]",
		" a  b\tc ":             "[a b c]",
		`a 'b c' "d e" f\ g ''`: `[a|b c|d e|f g|]`,
		`"a'b" 'a"b' "a\"b"`:    `[a'b|a"b|a"b]`,
		`a"b c"d`:               "[ab cd]",
		"a | b":                 `error '|' means something to a shell: quote it`,
		"a $HOME":               `error '$' means something to a shell: quote it`,
		"a '$HOME'":             "[a $HOME]",
		"a 'b":                  "error a quote is not closed",
		`a \`:                   "error a quote is not closed",
		" ":                     "error the command is empty",
		"":                      "error the command is empty",
	} {
		got, err := words(text)
		shown := "[" + strings.Join(got, "|") + "]"
		if err != nil {
			shown = "error " + err.Error()
		}
		if !strings.Contains(want, "|") || err != nil {
			shown = strings.ReplaceAll(shown, "|", " ")
			want = strings.ReplaceAll(want, "|", " ")
		}
		if shown != want {
			t.Errorf("words(%q) = %s; want %s", text, shown, want)
		}
	}
}
