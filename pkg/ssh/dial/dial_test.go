// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const banner = "SSH-2.0-Brolga_0123456789abcdef"

// listen answers each connection with the parts of a text, and returns its port.
func listen(t *testing.T, parts ...string) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for _, part := range parts {
					_, _ = io.WriteString(conn, part)
					time.Sleep(5 * time.Millisecond)
				}
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// nobody returns a port that nobody listens on.
func nobody(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func peer(ports ...int) Peer {
	return Peer{Names: []string{"n1"}, Address: "127.0.0.1", Ports: ports, Banner: banner}
}

func TestDial(t *testing.T) {
	server := listen(t, banner+"\r\n")
	for _, tt := range []struct {
		name  string
		ports []int
		port  int
	}{
		{"the first port", []int{server, nobody(t)}, server},
		{"after one that nobody has", []int{nobody(t), server}, server},
		{"after another server", []int{listen(t, "SSH-2.0-OpenSSH_9.2p1 Debian\r\n"), server}, server},
		{"after the server of another step", []int{listen(t, "SSH-2.0-Brolga_ffffffffffffffff\r\n"), server}, server},
		{"after one that says nothing", []int{listen(t), server}, server},
		{"after one that says too little", []int{listen(t, "SSH-2.0-Brolga_0123"), server}, server},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := Dial(t.Context(), peer(tt.ports...))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := conn.RemoteAddr().(*net.TCPAddr).Port; got != tt.port {
				t.Errorf("Dial reaches port %d; want %d", got, tt.port)
			}
			all := make([]byte, len(banner)+2)
			if _, err := io.ReadFull(conn, all); err != nil || string(all) != banner+"\r\n" {
				t.Errorf("the connection begins with %q, %v; want all that the server said", all, err)
			}
		})
	}
	t.Run("in pieces", func(t *testing.T) {
		pieces := listen(t, banner[:5], banner[5:20], banner[20:]+"\r", "\n")
		conn, err := Dial(t.Context(), peer(pieces))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}

// TestDialWaits checks that a server may come later.
func TestDialWaits(t *testing.T) {
	port := nobody(t)
	go func() {
		time.Sleep(50 * time.Millisecond)
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, banner+"\r\n")
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}()
	conn, err := Dial(t.Context(), peer(port))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestDialGivesUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, tt := range []struct {
		port int
		want string
	}{{nobody(t), "connection refused"}, {listen(t, "SSH-2.0-other\r\n"), "another server has the port"}} {
		_, err := Dial(ctx, peer(tt.port))
		if err == nil || !strings.HasPrefix(err.Error(), "connect to the SSH server on node n1: ") || !strings.Contains(err.Error(), tt.want) && ctx.Err() == nil {
			t.Errorf("Dial = %v; want %q", err, tt.want)
		}
	}
}

func TestPass(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	conn, err := Dial(t.Context(), peer(listen(t, banner+"\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	if err := Pass(conn, fds[0]); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	control := make([]byte, unix.CmsgSpace(4))
	if _, _, _, _, err := unix.Recvmsg(fds[1], make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		t.Fatal(err)
	}
	got, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(got[0]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %x, %v; want a blocking descriptor", flags, err)
	}
	f := os.NewFile(uintptr(got[0]), "passed")
	defer f.Close()
	text := make([]byte, len(banner))
	if _, err := io.ReadFull(f, text); err != nil || string(text) != banner {
		t.Errorf("the receiver reads %q, %v", text, err)
	}
}
