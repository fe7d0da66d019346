// SPDX-License-Identifier: Apache-2.0

package device

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/device"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// addAnswer adds what CDI specifications say. All that is wrong is reported.
func (p *plan) addAnswer(a device.Answer) error {
	p.found.Env = append(p.found.Env, a.Env...)
	p.found.Notes = append(p.found.Notes, a.Notes...)
	var errs []error
	for _, n := range a.Nodes {
		errs = append(errs, of(n.Specification, p.addNode(n.Host, n.Container)))
	}
	for _, m := range a.Mounts {
		errs = append(errs, of(m.Specification, p.addMount(m)))
	}
	var folders []string
	for _, h := range a.Hooks {
		more, err := p.addHook(h)
		errs = append(errs, of(h.Specification, err))
		folders = append(folders, more...)
	}
	for _, m := range a.Mounts {
		if slices.Contains(folders, filepath.Dir(m.Container)) {
			p.addLibrary(m.Host, m.Container)
		}
	}
	return errors.Join(errs...)
}

// of says which file an error is about.
func of(specification string, err error) error {
	if err == nil {
		return nil
	}
	return fault.WithHint(fmt.Errorf("CDI specification %s: %w", specification, err),
		"it does not fit the node, perhaps since its driver is another: its administrator must generate it again")
}

// addNode adds a device file.
func (p *plan) addNode(host, container string) error {
	container = filepath.Clean(container)
	if !strings.HasPrefix(container, "/dev/") {
		return fmt.Errorf("device at %s: want a path below /dev", container)
	}
	var st unix.Stat_t
	err := unix.Stat(host, &st)
	switch kind := st.Mode & unix.S_IFMT; {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: no such device on this node", host)
	case err != nil:
		return fmt.Errorf("%s: %w", host, err)
	case kind != unix.S_IFCHR && kind != unix.S_IFBLK && kind != unix.S_IFIFO:
		return fmt.Errorf("%s is not a device", host)
	}
	p.found.Mounts = append(p.found.Mounts, bundlespec.Bind(host, container, bundlespec.AsUser, bundlespec.Devices, "noexec"))
	return nil
}

// keptOptions are those options of a mount that can be chosen. Mounts are always
// recursive, nosuid and nodev.
var keptOptions = []string{"ro", "noexec", "private", "rprivate", "slave", "rslave"}

func (p *plan) addMount(m device.Mount) error {
	target := filepath.Clean(m.Container)
	switch {
	case !filepath.IsAbs(target) || target == "/" || target == "/dev":
		return fmt.Errorf("mount at %q: want a path in the container", m.Container)
	case isBelow(target, "/proc") || isBelow(target, "/sys"):
		p.note("CDI specification %s: ignored mount at %s: it is the host's", m.Specification, target)
		return nil
	case m.Type == "tmpfs":
		p.found.Mounts = append(p.found.Mounts, specs.Mount{Destination: target, Source: "tmpfs", Type: "tmpfs", Options: m.Options})
		return nil
	case m.Type != "" && m.Type != "bind" && m.Type != "none":
		return fmt.Errorf("mount at %s: type %q is none of bind and tmpfs", target, m.Type)
	case !filepath.IsAbs(m.Host):
		return fmt.Errorf("mount of %q: want an absolute path", m.Host)
	}
	if err := unix.Access(m.Host, unix.F_OK); err != nil {
		return fmt.Errorf("mount of %s: %w", m.Host, err)
	}
	options := []string{bundlespec.AsUser}
	for _, o := range m.Options {
		if slices.Contains(keptOptions, o) {
			options = append(options, o)
		}
	}
	p.found.Mounts = append(p.found.Mounts, bundlespec.Bind(m.Host, target, options...))
	return nil
}

func isBelow(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
