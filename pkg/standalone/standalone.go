// SPDX-License-Identifier: Apache-2.0

// Package standalone is what a container without Slurm ("brolga run") has instead of
// slurmstepd: brolga decides, opens the image and passes a [Message] to the helper.
//
// Without root the helper runs in a user namespace that maps the caller alone, to user 0.
// Read turns the request into that user's.
package standalone

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/step"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// Message is what brolga passes to the helper, as JSON, beside the open image.
type Message struct {
	Step step.Step
	Way  userfile.Way
	Meta store.Meta
	// Terminal is the device that the user sits at, or empty.
	Terminal string
}

// Container is a message on the helper's side.
type Container struct {
	Step     step.Step
	Image    image.Image
	Terminal string
	// Rootless tells that the user is not root, but this process is, in a user
	// namespace; the job's user is then 0, too.
	Rootless bool
}

// Open returns the image. A directory is opened again, in the mount namespace of the
// calling thread: one of another namespace cannot be mounted (mount(2), EINVAL). The
// path is the user's own, and so is this process.
func (c *Container) Open() (image.Image, error) {
	img := c.Image
	if img.Way != userfile.Bind {
		return img, nil
	}
	err := img.Close()
	if err == nil {
		img.File, err = userfile.Directory(c.Step.Request.Image.Path)
	}
	return img, err
}

// maxMessage limits the size in bytes of a message: options, the environment and what the
// store knows of an image.
const maxMessage = 32 << 20

// Write returns an open memory file with the message, for a program to inherit.
func Write(m Message) (fd int, err error) {
	text, err := json.Marshal(m)
	if err != nil {
		return -1, err
	}
	if fd, err = safefile.Memory("brolga-run", text); err != nil {
		return -1, err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	return fd, err
}

// Read reads a message that belongs to the image that is open as fd. The sender runs as
// the same user, so it is believed.
func Read(r io.Reader, fd uintptr) (Container, error) {
	var m Message
	text, err := budget.Read(r, maxMessage)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return Container{}, fmt.Errorf("internal error: read the request: %w", err)
	}
	file := os.NewFile(fd, m.Step.Request.Image.String())
	c := Container{Step: m.Step, Image: image.Image{File: file, Way: m.Way, Meta: m.Meta}, Terminal: m.Terminal}
	if c.Step.Request.UID == 0 {
		return c, nil
	}
	c.Rootless = true
	groups, err := ownGroups()
	c.Step.Request = c.Step.Request.AsRoot(groups)
	return c, err
}

// ownGroups returns the groups as they appear in the user namespace: mostly as nobody's.
func ownGroups() (groups []uint32, err error) {
	all, err := os.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("find the groups: %w", err)
	}
	for _, g := range all {
		groups = append(groups, uint32(g))
	}
	return groups, nil
}
