// SPDX-License-Identifier: Apache-2.0

// Package lease lets one process of a cluster at a time do a piece of work.
//
// It needs no more than a file system that all of them see: flock(2) is local to
// a node, or missing, on some parallel file systems. A lease is a directory with
// one file in it, whose name says who holds it and is never used again:
//
//	PATH/HOST+BOOT+PIDS+PID+RANDOM
//
// It is taken by renaming a directory with that file onto PATH, which fails
// where PATH is not empty. It is given back, or taken from a holder that died, by
// removing that file: a name that is another's by now is not there any more, so
// nobody can remove a lease but the one they mean, however long they slept in
// between. The holder renews the file's time. Who waits looks whether that time
// changes, not what it is, so the clocks of the nodes do not matter; a holder on
// the same node that has ended is noticed at once.
//
// A holder that was stopped for longer than that has lost its lease without
// knowing: [Lease.Context] ends as soon as it runs again. What is done under a
// lease must be harmless when two do it, such as to publish the same content by
// rename.
package lease

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrDone means that [Options.Done] said so.
	ErrDone = errors.New("another process has done it")
	// ErrLost means that the holder did not run for so long that another
	// process took its lease.
	ErrLost = errors.New("stopped for too long: another process went on with this")
)

const (
	defaultRenew = 5 * time.Second
	// defaultExpiry is long against a file server that fails over.
	defaultExpiry = time.Minute
	longestPause  = time.Second
	newPrefix     = ".new-"
)

// Options says how to wait for a lease. The zero value is good.
type Options struct {
	// Waited is called once when another process has the lease.
	Waited func()
	// Done says that there is nothing left to do. Whoever waits then gets
	// [ErrDone], so that a thousand nodes need not have the lease in turn.
	Done func() bool

	renew, expiry time.Duration // for tests
	self          *owner
}

// Lease is held until Close.
type Lease struct {
	path, token string
	ctx         context.Context
	cancel      context.CancelCauseFunc
	ended       chan struct{} // the renewal has
}

// Acquire waits for the lease at path and takes it. The directory above exists
// and belongs to the caller.
func Acquire(ctx context.Context, path string, o Options) (*Lease, error) {
	if o.renew == 0 {
		o.renew, o.expiry = defaultRenew, defaultExpiry
	}
	if o.self == nil {
		o.self = thisProcess()
	}
	l, err := o.acquire(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("lease %s: %w", path, err)
	}
	return l, nil
}

func (o Options) acquire(ctx context.Context, path string) (*Lease, error) {
	w := watch{expiry: o.expiry, self: *o.self}
	for pause := time.Millisecond; ; pause = min(2*pause, longestPause, o.renew) {
		if o.Done != nil && o.Done() {
			return nil, ErrDone
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		state, err := look(path)
		if err != nil {
			return nil, err
		}
		if w.isStale(state, pause) {
			if err := os.Remove(filepath.Join(path, state.token)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			state = seen{}
		}
		if state.token == "" {
			l, err := take(path, *o.self)
			if err != nil {
				return nil, err
			}
			if l != nil {
				l.begin(ctx, o.renew)
				return l, nil
			}
		}
		if o.Waited != nil {
			o.Waited()
			o.Waited = nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + mrand.N(pause)):
		}
	}
}

// Held says whether the lease at path looks taken, dead holders on other nodes
// included.
func Held(path string) bool {
	state, err := look(path)
	return err != nil || (state.token != "" && !parseOwner(state.token).isDead(*thisProcess()))
}

// HeldHere reports whether a process of this node has the lease and renews it.
func HeldHere(path string) bool {
	state, err := look(path)
	if err != nil || state.token == "" || time.Since(state.renewed) > defaultExpiry {
		return false
	}
	holder, self := parseOwner(state.token), *thisProcess()
	return holder.isHere(self) && !holder.isDead(self)
}

// Sweep removes from the directory dir of leases what processes that died have
// left: those of this node, and those of others that were not renewed since
// before, by the clock of the file system. It returns what it removed; with dry
// it only says it.
func Sweep(dir string, before time.Time, dry bool) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var swept []string
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		state, err := look(path)
		if err != nil {
			continue // not a lease
		}
		if token, isNew := strings.CutPrefix(e.Name(), newPrefix); isNew && state.token == "" {
			if info, err := e.Info(); err == nil {
				state = seen{token, info.ModTime()}
			}
		}
		if !state.renewed.Before(before) && !parseOwner(state.token).isDead(*thisProcess()) {
			continue
		}
		swept = append(swept, state.token)
		if dry {
			continue
		}
		err = os.Remove(filepath.Join(path, state.token))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		_ = unix.Rmdir(path) // not if someone has it by now
	}
	return swept, errors.Join(errs...)
}

// Context ends when the lease is lost, with [ErrLost] as its cause, or closed.
func (l *Lease) Context() context.Context { return l.ctx }

// Lost says whether the lease is lost, which it may be before its context knows.
func (l *Lease) Lost() bool { return errors.Is(l.touch(), fs.ErrNotExist) }

// Close gives the lease back, unless it was lost.
func (l *Lease) Close() error {
	l.cancel(nil)
	<-l.ended
	err := os.Remove(l.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // lost
	}
	if err != nil {
		return fmt.Errorf("give lease back: %w", err)
	}
	// Not if someone has it by now. An empty directory is as good as none.
	_ = unix.Rmdir(l.path)
	return nil
}

func (l *Lease) file() string { return filepath.Join(l.path, l.token) }

// begin renews the lease until it is closed.
func (l *Lease) begin(ctx context.Context, every time.Duration) {
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.ended = make(chan struct{})
	go func() {
		defer close(l.ended)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-l.ctx.Done():
				return
			case <-ticker.C:
			}
			// Other errors may pass, or others take the lease.
			if err := l.touch(); errors.Is(err, fs.ErrNotExist) {
				l.cancel(ErrLost)
				return
			}
		}
	}()
}

func (l *Lease) touch() error {
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	return unix.UtimesNanoAt(unix.AT_FDCWD, l.file(), []unix.Timespec{now, now}, 0)
}

// take takes a lease that looks free; nil if another process was faster.
func take(path string, self owner) (*Lease, error) {
	l := &Lease{path: path, token: self.token()}
	draft := filepath.Join(filepath.Dir(path), newPrefix+l.token)
	if err := os.Mkdir(draft, 0o700); err != nil {
		return nil, err
	}
	name := filepath.Join(draft, l.token)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		_ = unix.Rmdir(path) // some file systems do not rename onto an empty directory
		err = unix.Rename(draft, path)
	}
	if err == nil {
		return l, nil
	}
	if _, there := os.Lstat(l.file()); there == nil {
		return l, nil // a file server said so twice
	}
	os.Remove(name)
	os.Remove(draft)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil, nil
	}
	return nil, err
}

// seen is what a look at a lease shows. The token is empty when it is free.
type seen struct {
	token   string
	renewed time.Time
}

func look(path string) (seen, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && len(entries) == 0) {
		return seen{}, nil
	}
	if err != nil {
		return seen{}, err
	}
	s := seen{token: entries[0].Name()}
	// Opened, not only asked about: that is when an NFS client asks the server.
	f, err := os.Open(filepath.Join(path, s.token))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESTALE) {
		return seen{}, nil
	}
	if err != nil {
		return seen{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return seen{}, err
	}
	s.renewed = st.ModTime()
	return s, nil
}

// watch remembers for how long a lease has not changed.
type watch struct {
	expiry time.Duration
	self   owner
	last   seen
	at     time.Time // of the last look
	idle   time.Duration
}

// isStale says whether the holder is gone, to be called once per pause. Time in
// which this process should have looked and did not does not count: it was
// stopped, and perhaps the holder with it.
func (w *watch) isStale(s seen, pause time.Duration) bool {
	now := time.Now()
	if s == w.last {
		w.idle += min(now.Sub(w.at), 2*pause)
	} else {
		w.last, w.idle = s, 0
	}
	w.at = now
	return s.token != "" && (w.idle > w.expiry || parseOwner(s.token).isDead(w.self))
}

// owner is a process, as one of another node can tell it from others.
type owner struct {
	host, boot, pids string // pids is the process id namespace
	pid              int
}

func thisProcess() *owner {
	host, _ := os.Hostname()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	pids, _ := os.Readlink("/proc/self/ns/pid")
	clean := strings.NewReplacer("+", "", "/", "", "\n", "", "pid:[", "", "]", "").Replace
	return &owner{clean(host), clean(string(boot)), clean(pids), os.Getpid()}
}

// token returns a new name for a lease of the process.
func (o owner) token() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return strings.Join([]string{o.host, o.boot, o.pids, strconv.Itoa(o.pid), hex.EncodeToString(random[:])}, "+")
}

// parseOwner returns whose token it is; pid is 0 if it is no token.
func parseOwner(token string) owner {
	part := strings.Split(token, "+")
	if len(part) != 5 {
		return owner{}
	}
	pid, err := strconv.Atoi(part[3])
	if err != nil || pid < 1 {
		return owner{}
	}
	return owner{part[0], part[1], part[2], pid}
}

// isDead says that the process is known to have ended, because this one would
// see it.
func (o owner) isDead(self owner) bool {
	return o.isHere(self) && errors.Is(unix.Kill(o.pid, 0), unix.ESRCH)
}

// isHere reports whether this process would see that one.
func (o owner) isHere(self owner) bool {
	return o.pid > 0 && o.boot != "" && o.pids != "" && o.host == self.host && o.boot == self.boot && o.pids == self.pids
}
