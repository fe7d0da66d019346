// SPDX-License-Identifier: Apache-2.0

// Package save writes the root file system of a container to a squashfs file of
// its user's.
//
// The directory is opened as the user, and looked at, before the step's tasks
// start: a mistake shows at once and not when hours of work shall be saved. The
// file itself is written by "brolga save", which runs as the user. It may read
// every file of the container, which is the user's to read anyway, as an image
// that the user could pull or has made; a directory of the host that is used as
// image is not, and there it reads as the user and no more.
package save

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// Target is where a root file system will be saved. The caller closes it.
type Target struct {
	path string
	dir  *os.File
	user identity.User
}

// Open opens the directory that gets the file and checks, as the user, that the
// file can be made there, or replaced. Identity: root.
func Open(path string, user identity.User) (*Target, error) {
	t := &Target{path: path, user: user}
	err := user.Do(func() (err error) {
		t.dir, err = userfile.Destination(path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", option.Save, err)
	}
	return t, nil
}

// Close closes the directory.
func (t *Target) Close() error { return t.dir.Close() }

// Params say what to write, and how.
type Params struct {
	// Client is the brolga command, ConfigPath what it reads; it may be empty.
	Client, ConfigPath string
	// Tree is the open root directory.
	Tree *os.File
	// Remapped says that the user is root in the container.
	Remapped bool
	// OnlyAsUser keeps from what the user may not read.
	OnlyAsUser bool
	// Umask is the step's: it takes permissions from the file.
	Umask int
	// Join, if set, makes the process that writes a part of the step.
	Join func(pid int) error
}

// Write writes the file. It appears when it is complete, or not at all. Identity:
// root.
func (t *Target) Write(ctx context.Context, p Params) error {
	temporary := ".brolga-save-" + rand.Text()[:10]
	args := []string{"save", "--umask", fmt.Sprintf("%03o", p.Umask)}
	if p.ConfigPath != "" {
		args = append(args, "--config", p.ConfigPath)
	}
	if p.Remapped {
		args = append(args, "--root", fmt.Sprintf("%d:%d", t.user.UID, t.user.GID))
	}
	c := command.Cmd{
		Path: p.Client, Args: append(args, "--", temporary, filepath.Base(t.path)),
		Env:      []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
		Identity: &t.user,
		Files:    []*os.File{t.dir, p.Tree},
		Join:     p.Join,
		TidiesUp: true,
	}
	if !p.OnlyAsUser {
		c.Ambient = []uintptr{unix.CAP_DAC_READ_SEARCH}
	}
	err := command.PassOn(command.Run(ctx, c))
	if err == nil {
		return nil
	}
	// It removes what it has not finished, unless it was killed.
	_ = t.user.Do(func() error { return unix.Unlinkat(int(t.dir.Fd()), temporary, 0) })
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("save the container to %s: %w", t.path, err)
}

// Pending is what a process writes that may have to end. The zero value is nothing.
type Pending struct {
	mu     sync.Mutex
	cancel context.CancelFunc
	done   chan struct{}
}

// Begin notes that something is written, until the function that it returns is
// called.
func (p *Pending) Begin(ctx context.Context) (context.Context, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, p.cancel = context.WithCancel(ctx)
	p.done = make(chan struct{})
	return ctx, func() { p.cancel(); close(p.done) }
}

// Abort ends what is written, and waits until nothing is left of it, but not for
// long: a file server may have gone.
func (p *Pending) Abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel == nil {
		return
	}
	p.cancel()
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
}
