// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// Limits of the memory of a program that reads what users make. Go collects garbage to
// stay below the first. The kernel gives no more than the second (RLIMIT_DATA), which Go
// does not survive: it is the last resort. Go itself sets aside some 130 MiB of it, which
// is not used.
const (
	softMemory = 40 << 20
	hardMemory = 256 << 20
)

// limits are those of this process alone. Programs that it starts get the limits from
// before.
var limits struct {
	mu       sync.Mutex
	all      []limit
	starting int // programs
}

type limit struct {
	resource    int
	before, own unix.Rlimit
}

// LimitMemory limits the memory of this process, and not of the programs that it starts.
func LimitMemory() error {
	debug.SetMemoryLimit(softMemory)
	return lower(unix.RLIMIT_DATA, hardMemory)
}

// NoCore keeps this process from leaving a core file, which would have the secrets it
// reads. Programs that it starts may leave one.
func NoCore() error { return lower(unix.RLIMIT_CORE, 0) }

// Hide closes what /proc shows of this process to other processes of the same user, and
// forbids a core file whatever the limit is. The programs that it starts are not hidden.
// A process that maps identities of a user namespace without privilege cannot be hidden.
func Hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide the process: %w", err)
	}
	return NoCore()
}

// lower lowers a limit of this process. It is called once for each resource.
func lower(resource int, most uint64) error {
	limits.mu.Lock()
	defer limits.mu.Unlock()
	l := limit{resource: resource}
	if err := unix.Getrlimit(resource, &l.before); err != nil {
		return fmt.Errorf("read limit %d: %w", resource, err)
	}
	l.own = l.before
	l.own.Cur = min(l.own.Cur, most)
	if err := unix.Setrlimit(resource, &l.own); err != nil {
		return fmt.Errorf("set limit %d: %w", resource, err)
	}
	limits.all = append(limits.all, l)
	return nil
}

// withoutLimit calls start, which starts a program: that inherits the limits that this
// process has then.
func withoutLimit(start func() error) error {
	err := lift(1, func(l *limit) *unix.Rlimit { return &l.before })
	if err == nil {
		err = start()
	}
	return errors.Join(err, lift(-1, func(l *limit) *unix.Rlimit { return &l.own }))
}

// lift sets the limits when the first program is going to be started, and when the last one
// was.
func lift(change int, choose func(*limit) *unix.Rlimit) error {
	limits.mu.Lock()
	defer limits.mu.Unlock()
	first := limits.starting == 0
	limits.starting += change
	if !first && limits.starting > 0 {
		return nil
	}
	var errs []error
	for i := range limits.all {
		l := &limits.all[i]
		if err := unix.Setrlimit(l.resource, choose(l)); err != nil {
			errs = append(errs, fmt.Errorf("set limit %d: %w", l.resource, err))
		}
	}
	return errors.Join(errs...)
}
