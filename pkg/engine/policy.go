// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"path/filepath"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/label"
	"github.com/brolga-hpc/brolga/pkg/nodecache"
	"github.com/brolga-hpc/brolga/pkg/seccomp"
)

// labels are the site's for tasks.
func (e *Engine) labels() label.Labels {
	c := e.Step.Config.Container
	return label.Labels{AppArmor: c.AppArmorProfile, SELinux: c.SELinuxLabel}
}

// loadFilter reads the site's seccomp profile, once and where there is one. The
// calling thread sees the host's files.
func (r *run) loadFilter() error {
	path := r.Step.Config.Container.Seccomp
	if path == "" || r.filter != nil {
		return nil
	}
	var m nodecache.Cache
	if !r.rootless() { // whose directories are not root's
		m = nodecache.At(filepath.Join(r.Step.Config.RunDir, "found"))
	}
	filter, err := seccomp.Load(path, config.ParserPath(), m)
	if err != nil {
		return err
	}
	for _, note := range filter.Notes {
		r.addMessage("debug", fault.Printable("seccomp profile "+path+": "+note))
	}
	r.filter = &filter
	return nil
}
