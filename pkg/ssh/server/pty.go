// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// pty is the terminal of a session. A nil pty is none.
type pty struct{ master, terminal *os.File }

// makePTY makes the session's terminal.
func (x *session) makePTY(payload []byte) bool {
	var want struct {
		Term          string
		Columns, Rows uint32
		Width, Height uint32
		Modes         string
	}
	if ssh.Unmarshal(payload, &want) != nil || x.pty != nil || x.started || !settable("TERM", want.Term) {
		return false
	}
	p, err := openPTY()
	if err != nil {
		x.say(err)
		return false
	}
	x.pty = p
	x.set("TERM", want.Term)
	x.set("SSH_TTY", p.terminal.Name())
	return p.setSize(want.Columns, want.Rows, want.Width, want.Height)
}

// openPTY opens both ends of a new terminal (pts(4), ioctl_tty(2)).
func openPTY() (*pty, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	var number int
	var peer uintptr
	var ptyErr error
	err = raw.Control(func(m uintptr) {
		if ptyErr = unix.IoctlSetPointerInt(int(m), unix.TIOCSPTLCK, 0); ptyErr != nil {
			return
		}
		if number, ptyErr = unix.IoctlGetInt(int(m), unix.TIOCGPTN); ptyErr != nil {
			return
		}
		fd, _, errno := unix.Syscall(unix.SYS_IOCTL, m, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if peer = fd; errno != 0 {
			ptyErr = errno
		}
	})
	if err == nil {
		err = ptyErr
	}
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	return &pty{master, os.NewFile(peer, fmt.Sprintf("/dev/pts/%d", number))}, nil
}

// resize carries out a request of the client's for another size.
func (p *pty) resize(payload []byte) bool {
	var to struct{ Columns, Rows, Width, Height uint32 }
	return p != nil && ssh.Unmarshal(payload, &to) == nil && p.setSize(to.Columns, to.Rows, to.Width, to.Height)
}

func (p *pty) setSize(columns, rows, width, height uint32) bool {
	raw, err := p.master.SyscallConn()
	if err != nil {
		return false
	}
	size := unix.Winsize{Row: uint16(rows), Col: uint16(columns), Xpixel: uint16(width), Ypixel: uint16(height)}
	var sizeErr error
	err = raw.Control(func(m uintptr) { sizeErr = unix.IoctlSetWinsize(int(m), unix.TIOCSWINSZ, &size) })
	return err == nil && sizeErr == nil
}

func (p *pty) close() {
	if p != nil {
		p.master.Close()
		p.terminal.Close()
	}
}
