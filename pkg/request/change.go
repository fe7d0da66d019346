// SPDX-License-Identifier: Apache-2.0

package request

import "path/filepath"

// A request does not change. These methods return a new one, with what only a node knows.

// In returns the request with what is relative starting in dir, an absolute path: the
// image's file, the sources of mounts and the file that the container is saved to.
func (r Request) In(dir string) Request {
	var all []Mount
	for _, m := range r.Mounts {
		if m.IsRelative() {
			m.Source = filepath.Join(dir, m.Source)
		}
		all = append(all, m)
	}
	r.Mounts, r.Image = all, r.Image.In(dir)
	if r.Save != nil && !filepath.IsAbs(r.Save.Path) {
		saved := *r.Save
		saved.Path = filepath.Join(dir, saved.Path)
		r.Save = &saved
	}
	return r
}

// WithPMIx returns the request with what a task, by its environment, tells of Slurm's PMIx
// server.
func (r Request) WithPMIx(task []string) (Request, error) {
	if r.PMIx == nil {
		return r, nil
	}
	p, err := r.PMIx.completed(task, r.UID)
	r.PMIx = &p
	return r, err
}

// Joining returns the request of a step that joins a running container, which has
// namespaces of these kinds, perhaps one of users, and has run its entrypoint.
func (r Request) Joining(kinds []string, remapped bool) Request {
	r.Unshare, r.RemapRoot, r.Entrypoint, r.EntrypointLog = kinds, remapped, false, false
	return r
}

// AsRoot returns the request of the root of a user namespace, where the user's groups are
// these. Whether the command is root, too, is the launcher's business.
func (r Request) AsRoot(groups []uint32) Request {
	r.UID, r.GID, r.Groups, r.RemapRoot = 0, 0, groups, false
	return r
}
