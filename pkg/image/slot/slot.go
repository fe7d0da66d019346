// SPDX-License-Identifier: Apache-2.0

// Package slot limits how many processes of a node do something at the same time.
//
// A slot is a file of root's that a process has locked with flock(2). The kernel
// unlocks it when the last process that has the file open ends, whatever ended it.
// So a slot is never lost, and nothing has to be tidied up:
//
//	DIR/NAME.NUMBER.lock
//
// A process that waits tries all slots of a name again and again. All waiting processes
// have the same chance, however long they have waited.
package slot

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/safefile"
)

// ErrDone means that [Options.Done] reported true.
var ErrDone = errors.New("another process has done it")

// pause is the time between two tries. It varies, so that nobody is always first.
const pause = 100 * time.Millisecond

// Options says how to wait.
type Options struct {
	// Waits is called once, when no slot is free at first.
	Waits func()
	// Done reports that there is nothing left to do. The wait then ends with [ErrDone].
	Done func() bool
	// Ready reports that a slot is of use now. Without it, it always is.
	Ready func() bool
}

// Slot is taken until Close, and by each process that inherits its file.
type Slot struct {
	Number int      // from 1 on
	File   *os.File // for a process that inherits the slot
}

// Close gives the slot back, unless another process has its file.
func (s *Slot) Close() error { return s.File.Close() }

// Take waits for one of the count slots of that name. Dir is a directory of the
// caller's alone and is made when it is missing; the directory above it must exist.
func Take(ctx context.Context, dir, name string, count int, o Options) (*Slot, error) {
	at, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("take a slot: %w", err)
	}
	defer at.Close()
	for {
		if o.Done != nil && o.Done() {
			return nil, ErrDone
		}
		if o.Ready == nil || o.Ready() {
			s, err := try(at, name, count)
			if s != nil || err != nil {
				return s, err
			}
		}
		if o.Waits != nil {
			o.Waits()
			o.Waits = nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// open opens the directory of slots and checks that nobody else can change it.
func open(dir string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && (st.Uid != uint32(os.Geteuid()) || st.Mode&0o077 != 0) {
		err = fmt.Errorf("%s: want a directory that is root's alone (mode 0700)", dir)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// try takes a slot that is free. It returns nil when none is.
func try(dir *os.File, name string, count int) (*Slot, error) {
	for number := 1; number <= count; number++ {
		file := fmt.Sprintf("%s.%d.lock", name, number)
		fd, err := unix.Openat(int(dir.Fd()), file, unix.O_RDONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("take the slot %s: %w", file, err)
		}
		f := os.NewFile(uintptr(fd), file)
		locked, err := safefile.Try(f)
		if locked {
			return &Slot{number, f}, nil
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("take the slot %s: %w", file, err)
		}
	}
	return nil, nil
}
