// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// Registry is what the site says of one registry.
type Registry struct {
	// Name is HOST or HOST:PORT; HOST stands for all ports.
	Name string `toml:"name"`
	// Mirrors are tried before it, HOST[:PORT][/PATH].
	Mirrors []string `toml:"mirrors"`
	// Insecure says that it is spoken to without TLS. Loopback addresses may
	// always be.
	Insecure bool `toml:"insecure"`
	// CA is a file with certificates of authorities, PEM, that may vouch for it
	// besides the system's.
	CA string `toml:"ca"`
	// Blocked, if not empty, is why its images are refused.
	Blocked string `toml:"blocked"`
	// Parallel is how many blobs one pull fetches from it at once.
	Parallel int `toml:"parallel"`
}

const (
	defaultParallel = 4
	maxParallel     = 32
)

// Refusal returns the error for an image of a registry that is blocked, or nil.
func (r Registry) Refusal() error {
	if r.Blocked == "" {
		return nil
	}
	return fault.WithHint(fmt.Errorf("registry %s is blocked on this cluster", r.Name), r.Blocked)
}

// Registries are the registries that the site says something of.
type Registries []Registry

// For returns what the site says of a registry, HOST or HOST:PORT, with defaults
// for what it does not say.
func (all Registries) For(host string) Registry {
	r, ok := all.find(host)
	if !ok {
		r, ok = all.find(withoutPort(host))
	}
	if !ok {
		r.Name = host
	}
	if r.Parallel == 0 {
		r.Parallel = defaultParallel
	}
	return r
}

// withoutPort is for programs that do not link package net.
func withoutPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.IndexByte(host, ']') {
		return host[:i]
	}
	return host
}

func (all Registries) find(name string) (Registry, bool) {
	for _, r := range all {
		if r.Name == name {
			return r, true
		}
	}
	return Registry{}, false
}

// CutMirror separates the host of a mirror from what comes before the names of
// its images.
func CutMirror(mirror string) (host, prefix string) {
	host, prefix, _ = strings.Cut(mirror, "/")
	return host, prefix
}

func checkRegistries(c Config) error {
	var errs []error
	seen := map[string]bool{}
	for _, r := range c.Registries {
		errs = append(errs, r.checkName(seen))
		for _, m := range r.Mirrors {
			errs = append(errs, r.checkMirror(m, c.Registries))
		}
		if r.CA != "" && (!filepath.IsAbs(r.CA) || filepath.Clean(r.CA) != r.CA) {
			errs = append(errs, fmt.Errorf("registry %s: ca = %q: want an absolute path without . and ..", r.Name, r.CA))
		}
		if r.CA != "" && r.Insecure {
			errs = append(errs, fmt.Errorf("registry %s: insecure and ca exclude each other", r.Name))
		}
		if r.Parallel < 0 || r.Parallel > maxParallel {
			errs = append(errs, fmt.Errorf("registry %s: parallel = %d: want 1 to %d", r.Name, r.Parallel, maxParallel))
		}
	}
	return errors.Join(errs...)
}

func (r Registry) checkName(seen map[string]bool) error {
	before := seen[r.Name]
	seen[r.Name] = true
	switch {
	case !isHost(r.Name):
		return fmt.Errorf("registry.name = %q: want HOST or HOST:PORT", r.Name)
	case r.Name == "index.docker.io" || r.Name == "registry-1.docker.io":
		return fmt.Errorf("registry.name = %q: want docker.io", r.Name)
	case before:
		return fmt.Errorf("registry.name = %q: is there twice", r.Name)
	}
	return nil
}

func (r Registry) checkMirror(mirror string, all Registries) error {
	host, prefix := CutMirror(mirror)
	if !isHost(host) || path.Clean("/"+prefix) != "/"+prefix || strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789._-/") != "" {
		return fmt.Errorf("registry %s: mirror %q: want HOST[:PORT][/PATH]", r.Name, mirror)
	}
	if all.For(host).Blocked != "" {
		return fmt.Errorf("registry %s: mirror %q is blocked", r.Name, mirror)
	}
	return nil
}

// isHost checks for characters only: a name that does not exist is found out
// soon enough, and this runs with each step.
func isHost(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-:[]") == ""
}
