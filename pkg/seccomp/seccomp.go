// SPDX-License-Identifier: Apache-2.0

// Package seccomp has the site's seccomp profile ready for the tasks of a step: a
// file in the format of Docker and Podman becomes a program of the kernel's.
//
// brolga-parse does that (package compile). It is a program of its own: libseccomp
// would slow down the start of all steps. What it made of a profile is remembered on
// the node.
package seccomp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/nodecache"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// Filter is a profile that the kernel understands.
type Filter struct {
	// Flags are those of seccomp(2), SECCOMP_SET_MODE_FILTER.
	Flags uint
	// Program is an array of struct sock_filter (<linux/filter.h>).
	Program []byte
	// Notes are for those who want to hear more.
	Notes []string
}

// String returns the filter as tasks get it: see spank/PROTOCOL.md.
func (f Filter) String() string { return fmt.Sprintf("%d:%s", f.Flags, hex.EncodeToString(f.Program)) }

// Answer is what brolga-parse says: a filter, or why there is none.
type Answer struct {
	Filter Filter
	Error  string
}

// patience is how long brolga-parse may take, which takes milliseconds.
const patience = 30 * time.Second

// Load reads the profile at path, which must be root's alone, and has the program
// make a filter of it, unless m remembers that.
func Load(path, program string, m nodecache.Cache) (Filter, error) {
	filter, err := load(path, program, m)
	if err == nil {
		return filter, nil
	}
	what := "repair it"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		what = "install it on all nodes"
	case errors.Is(err, trust.ErrTamperable):
		what = "make it root's, and writable by nobody else"
	}
	return Filter{}, fault.WithHint(fmt.Errorf("seccomp profile %s: %w", path, err),
		"tell the administrator to "+what+"; container.seccomp in brolga.toml names it")
}

func load(path, program string, m nodecache.Cache) (Filter, error) {
	text, err := trust.Read(path)
	if err != nil {
		return Filter{}, err
	}
	var system unix.Utsname // profiles have rules for some kernels
	if err := unix.Uname(&system); err != nil {
		return Filter{}, err
	}
	key := fmt.Sprintf("seccomp %s %s %s", config.Version, unix.ByteSliceToString(system.Release[:]), text)
	var filter Filter
	if m.Recall(key, &filter) {
		return filter, nil
	}
	if filter, err = ask(program, text); err != nil {
		return Filter{}, err
	}
	if err := m.Keep(key, filter, nil); err != nil {
		filter.Notes = append(filter.Notes, "cannot be remembered: "+err.Error())
	}
	return filter, nil
}

func ask(program string, profile []byte) (Filter, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, fmt.Errorf("killed after %s", patience))
	defer cancel()
	var a Answer
	err := command.Parse(ctx, program, "seccomp", profile, &a)
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a.Filter, err
}
