// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/brolga-hpc/brolga/pkg/wire"
)

func portOf(t testing.TB, c Config, node, candidate int) string {
	t.Helper()
	return net.JoinHostPort(c.Nodes[node].Address, strconv.Itoa(newIdentity(c).ports(c.Ports, node)[candidate]))
}

// connect calls a node without knowing anything but its port.
func connect(t testing.TB, address string) net.Conn {
	t.Helper()
	for range 100 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("nobody listens on %s", address)
	return nil
}

// TestStrangers checks that who does not know the key is not heard, learns nothing,
// and cannot keep nodes from each other.
func TestStrangers(t *testing.T) {
	random := make([]byte, 1<<16)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	hello := append([]byte(magic), random[:nonceSize]...)
	for _, tt := range []struct {
		name    string
		strange func(t *testing.T, address string)
	}{
		{"garbage", func(t *testing.T, address string) {
			conn := connect(t, address)
			_, _ = conn.Write(random) // it may be cut off
			if got, _ := io.ReadAll(conn); len(got) > 0 {
				t.Errorf("garbage is answered with %d bytes", len(got))
			}
		}},
		{"the beginning of a call and garbage", func(t *testing.T, address string) {
			conn := connect(t, address)
			_, _ = conn.Write(append(hello, random[:4+macSize]...))
			if got, _ := io.ReadAll(conn); len(got) > nonceSize+macSize {
				t.Errorf("%d bytes", len(got))
			}
		}},
		{"what was said is said back", func(t *testing.T, address string) {
			conn := connect(t, address)
			_, _ = conn.Write(hello)
			answer := make([]byte, nonceSize+macSize)
			if _, err := io.ReadFull(conn, answer); err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(append([]byte{0, 0, 0, 1}, answer[nonceSize:]...))
			if got, _ := io.ReadAll(conn); len(got) > 0 {
				t.Errorf("%d bytes", len(got))
			}
		}},
		{"many that say nothing", func(t *testing.T, address string) {
			for range maxStrangers + 50 {
				connect(t, address)
			}
		}},
		{"many that begin to call and say no more", func(t *testing.T, address string) {
			for range maxStrangers + 50 {
				_, _ = connect(t, address).Write(hello[:20])
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			configs := step(t, 3, 2, time.Minute)
			root := Join(configs[0])
			defer root.Close()
			root.Ready()
			tt.strange(t, portOf(t, configs[0], 0, 0))
			others := join(t, configs, 0)
			for _, b := range others {
				b.Ready()
			}
			others[0] = root
			expectAll(t, others, "<nil>")
			delete(others, 0) // closed once
		})
	}
}

// TestFloodDuringCall checks that newer strangers do not interrupt a node's call.
func TestFloodDuringCall(t *testing.T) {
	configs := step(t, 2, 2, time.Minute)
	root := Join(configs[0])
	defer root.Close()
	address := portOf(t, configs[0], 0, 0)
	caller := connect(t, address)
	id := newIdentity(configs[1])
	called := make(chan error)
	tape := &recorder{Conn: caller, change: func(n int, _ []byte) {
		if n == 0 { // as slow as it is for these to come
			for range 300 {
				connect(t, address)
			}
		}
	}}
	go func() {
		_, err := shake(tape, func() (*link, error) { return id.call(tape, 0) })
		called <- err
	}()
	if err := <-called; err != nil {
		t.Errorf("call a node while 300 strangers come: %v", err)
	}
}

// TestOtherKey checks that a node of another step is not taken for one of this.
func TestOtherKey(t *testing.T) {
	t.Parallel()
	configs := step(t, 3, 2, 300*time.Millisecond)
	configs[1].Key = bytes.Repeat([]byte{7}, 32)
	all := join(t, configs)
	for _, b := range all {
		b.Ready()
	}
	for i, want := range map[int]string{0: "nothing was heard of n1", 1: "nothing was heard of n0", 2: "nothing was heard of n1"} {
		if err := result(t, all[i]); err == nil || !strings.HasPrefix(err.Error(), "after 300ms "+want) {
			t.Errorf("node %d: %v; want %s", i, err, want)
		}
	}
}

// TestOtherStep checks that the same key is of no use in a step of other nodes.
func TestOtherStep(t *testing.T) {
	configs := step(t, 2, 2, time.Minute)
	other := configs[1]
	other.Nodes = append(other.Nodes[:1:1], other.Nodes[0])
	if err := handshake(newIdentity(other), newIdentity(configs[0]), 0); err == nil {
		t.Error("a node of another step is let in")
	}
	if err := handshake(newIdentity(configs[1]), newIdentity(configs[0]), 0); err != nil {
		t.Errorf("a node of the step is not let in: %v", err)
	}
	if err := handshake(newIdentity(configs[1]), newIdentity(configs[0]), 1); err == nil {
		t.Error("a node takes another for the one that it calls")
	}
}

// handshake lets a node call another, which it takes for number.
func handshake(caller, listener identity, number int) error {
	a, b := net.Pipe()
	defer a.Close()
	errs := make(chan error, 1)
	go func() {
		_, err := shake(b, func() (*link, error) { return listener.answer(b) })
		errs <- err
	}()
	l, err := shake(a, func() (*link, error) { return caller.call(a, number) })
	if err != nil {
		return err
	}
	if err := l.writeMessage(newMessage(kindHere), time.Second); err != nil {
		return err
	}
	return <-errs
}

// TestBadProof checks that who proves nothing is sent away before anything more is
// read.
func TestBadProof(t *testing.T) {
	id := newIdentity(step(t, 2, 2, time.Minute)[0])
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		_, err := id.answer(b)
		done <- err
	}()
	answer := make([]byte, nonceSize+macSize)
	_, err1 := a.Write(append([]byte(magic), make([]byte, nonceSize)...))
	_, err2 := io.ReadFull(a, answer)
	_, err3 := a.Write(append([]byte{0, 0, 0, 1}, answer[nonceSize:]...))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err == nil {
			t.Error("the caller is let in")
		}
	case <-time.After(20 * time.Second):
		t.Error("more is read from the caller")
	}
}

// recorder keeps what is written to a connection, and may change it.
type recorder struct {
	net.Conn
	sent   bytes.Buffer
	change func(n int, p []byte)
	writes int
}

func (r *recorder) Write(p []byte) (int, error) {
	r.sent.Write(p)
	p = bytes.Clone(p)
	if r.change != nil {
		r.change(r.writes, p)
	}
	r.writes++
	return r.Conn.Write(p)
}

// TestReplay checks that a call that was recorded cannot be made again.
func TestReplay(t *testing.T) {
	t.Parallel()
	configs := step(t, 2, 2, time.Minute)
	caller, listener := newIdentity(configs[1]), newIdentity(configs[0])
	a, b := net.Pipe()
	defer a.Close()
	go func() { _, _ = listener.answer(b) }()
	tape := &recorder{Conn: a}
	l, err := caller.call(tape, 0)
	if err == nil {
		err = l.writeMessage(newMessage(kindHere), time.Second)
	}
	if err == nil {
		err = l.writeMessage(newMessage(kindReady), time.Second)
	}
	if err != nil && err != io.ErrClosedPipe && !strings.Contains(err.Error(), "timeout") {
		t.Fatal(err)
	}
	c, d := net.Pipe()
	defer c.Close()
	go func() { _, _ = io.Copy(io.Discard, c) }()
	go func() { _, _ = c.Write(tape.sent.Bytes()) }()
	if _, err := shake(d, func() (*link, error) { return listener.answer(d) }); err == nil {
		t.Error("a recorded call is taken for a new one")
	}
}

// TestChangedFrames checks that what is changed, repeated or left out on the way is
// noticed.
func TestChangedFrames(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(frames [][]byte) [][]byte
		want   int // messages that arrive
	}{
		{"unchanged", func(f [][]byte) [][]byte { return f }, 3},
		{"a bit", func(f [][]byte) [][]byte { f[1][10] ^= 1; return f }, 1},
		{"the length", func(f [][]byte) [][]byte { f[1][3]--; return f }, 1},
		{"a length of gigabytes", func(f [][]byte) [][]byte { f[1][0] = 255; return f }, 1},
		{"no length", func(f [][]byte) [][]byte { copy(f[1], []byte{0, 0, 0, 0}); return f }, 1},
		{"repeated", func(f [][]byte) [][]byte { return [][]byte{f[0], f[0], f[1]} }, 1},
		{"left out", func(f [][]byte) [][]byte { return [][]byte{f[0], f[2]} }, 1},
		{"exchanged", func(f [][]byte) [][]byte { return [][]byte{f[1], f[0]} }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := newIdentity(step(t, 2, 2, time.Minute)[1])
			tape := &recorder{Conn: discard{}}
			sender, err := id.link(tape, 0, true, []int{1, 0}, make([]byte, nonceSize), make([]byte, nonceSize))
			if err != nil {
				t.Fatal(err)
			}
			var frames [][]byte
			for i := range 3 {
				tape.sent.Reset()
				if err := sender.writeMessage(newMessage(fmt.Sprint("message ", i)), time.Second); err != nil {
					t.Fatal(err)
				}
				frames = append(frames, bytes.Clone(tape.sent.Bytes()))
			}
			receiver, err := id.link(discard{Reader: bytes.NewReader(bytes.Join(tt.change(frames), nil))}, 1, false, []int{1, 0}, make([]byte, nonceSize), make([]byte, nonceSize))
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			for {
				m, err := receiver.read()
				if err != nil {
					break
				}
				if m.kind() != fmt.Sprint("message ", got) {
					t.Errorf("message %d is %q", got, m.kind())
				}
				got++
			}
			if got != tt.want {
				t.Errorf("%d messages arrive; want %d", got, tt.want)
			}
		})
	}
}

// TestLongMessages checks that a node which stops in the middle of long messages, or sends
// one with many records, gets no more memory than a few messages take.
func TestLongMessages(t *testing.T) {
	id := newIdentity(step(t, 2, 2, time.Minute)[1])
	nonce := make([]byte, nonceSize)
	open := func(conn net.Conn, called bool) *link {
		l, err := id.link(conn, 0, called, []int{1, 0}, nonce, nonce)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	// Each begins a frame of nearly a MiB.
	head := []byte{0, 0x0f, 0xff, 0xff}
	begun := make(chan *link)
	var ends []net.Conn
	for range 2 * maxLarge {
		ours, theirs := net.Pipe()
		ends = append(ends, ours)
		go func() { l := open(theirs, false); begun <- l; _, _ = l.read(); l.release() }()
		<-begun
		if _, err := ours.Write(head); err != nil {
			t.Fatal(err)
		}
	}
	for len(id.large) < maxLarge {
		time.Sleep(time.Millisecond)
	}
	for _, c := range ends {
		c.Close()
	}
	for len(id.large) > 0 { // all give back what they had
		time.Sleep(time.Millisecond)
	}

	tape := &recorder{Conn: discard{}}
	many := newMessage(kindLate)
	for range maxRecords {
		many = append(many, wire.Record{Key: "a"})
	}
	if err := open(tape, true).writeMessage(many, time.Second); err != nil {
		t.Fatal(err)
	}
	if m, err := open(discard{Reader: &tape.sent}, false).read(); err == nil {
		t.Errorf("read = %d records; want an error", len(m))
	}
}

// TestLateAboutOthers checks that a node can speak only of itself and those below it.
func TestLateAboutOthers(t *testing.T) {
	b := &Barrier{config: step(t, 7, 2, time.Minute)[0], tree: tree{7, 2}}
	for text, want := range map[string]bool{"1": true, "[1,3-4]": true, "0": false, "[1-2]": false, "6": false} {
		err := b.toldLate(&below{link: &link{peer: 1}}, newMessage(kindLate, wire.Record{Key: "seen", Value: text}, wire.Record{Key: "ready", Value: ""}))
		if (err == nil) != want {
			t.Errorf("toldLate of %s by node 1 = %v; want success: %v", text, err, want)
		}
	}
}

// discard is a connection that takes all and has what its reader has.
type discard struct {
	net.Conn
	io.Reader
}

func (d discard) Read(p []byte) (int, error)       { return d.Reader.Read(p) }
func (d discard) Write(p []byte) (int, error)      { return len(p), nil }
func (d discard) SetWriteDeadline(time.Time) error { return nil }
func (d discard) Close() error                     { return nil }

// TestPortsTaken checks that somebody on the ports of a node, who may answer or not,
// is passed over.
func TestPortsTaken(t *testing.T) {
	configs := step(t, 2, 2, time.Minute)
	for i, behave := range []func(net.Conn){
		func(c net.Conn) { c.Close() },
		func(net.Conn) {}, // says nothing
		func(c net.Conn) { _, _ = c.Write(bytes.Repeat([]byte("HTTP/1.1 400 "), 50)) },
	} {
		l, err := net.Listen("tcp", portOf(t, configs[0], 0, i))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				behave(c)
			}
		}()
	}
	all := join(t, configs)
	for _, b := range all {
		b.Ready()
	}
	expectAll(t, all, "<nil>")
}

func TestAllPortsTaken(t *testing.T) {
	t.Parallel()
	configs := step(t, 2, 2, time.Second)
	for i := range configs {
		configs[i].Ports = Ports{20001, 20002}
	}
	for port := 20001; port <= 20002; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort(configs[0].Nodes[0].Address, strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	b := Join(configs[0])
	defer b.Close()
	b.Ready()
	if err := result(t, b); err == nil || !strings.Contains(err.Error(), "n0: listen for other nodes: no port that it may have in 20001-20002 is free") {
		t.Errorf("result %v; want that the ports are taken", err)
	}
}

// TestPortsAreSecret checks that candidates are in the range, and others for each
// step and node.
func TestPortsAreSecret(t *testing.T) {
	configs := step(t, 2, 2, time.Minute)
	seen := map[string]bool{}
	for _, key := range []string{"a", "b"} {
		c := configs[0]
		c.Key = bytes.Repeat([]byte(key), 32)
		for node := range 2 {
			ports := newIdentity(c).ports(c.Ports, node)
			for _, port := range ports {
				if port < c.Ports.First || port > c.Ports.Last {
					t.Errorf("port %d", port)
				}
			}
			if text := fmt.Sprint(ports); seen[text] {
				t.Errorf("ports %s come twice", text)
			} else {
				seen[text] = true
			}
		}
	}
	one := newIdentity(configs[0]).ports(Ports{7, 7}, 0)
	for _, port := range one {
		if port != 7 {
			t.Errorf("a range of one port gives %v", one)
		}
	}
}
