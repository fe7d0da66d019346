// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/step"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// message returns one of a user, or of root.
func message(uid uint32) Message {
	return Message{
		Step: step.Step{
			Config:  config.Default(),
			Request: request.Request{Identity: request.Identity{UID: uid, GID: uid, Groups: []uint32{5}}, Namespaces: request.Namespaces{RemapRoot: true}, Source: request.Source{Image: ref.Ref{Kind: ref.Squashfs, Path: "/a.sqsh"}}, Filesystem: request.Filesystem{TmpfsSize: "1g"}},
			Env:     []string{"A=b\nc"},
		},
		Way: userfile.Fuse, Meta: store.Meta{Digest: "sha256:0", Passwd: []byte("root:x\n")}, Terminal: "/dev/pts/3",
	}
}

// read passes a message through its file.
func read(t *testing.T, m Message) Container {
	t.Helper()
	fd, err := Write(m)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "message")
	defer f.Close()
	image, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	c, err := Read(f, image.Fd())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMessageOfRoot(t *testing.T) {
	m := message(0)
	c := read(t, m)
	if !reflect.DeepEqual(c.Step, m.Step) || c.Rootless {
		t.Errorf("Read = %+v; want the job as it was, %+v", c.Step, m.Step)
	}
	if c.Image.Way != m.Way || !reflect.DeepEqual(c.Image.Meta, m.Meta) || c.Terminal != m.Terminal || c.Image.File.Name() != "/a.sqsh" {
		t.Errorf("Read = %+v", c)
	}
}

// TestMessageOfUser: in its user namespace the helper is root, and so is the request.
func TestMessageOfUser(t *testing.T) {
	r := read(t, message(4711)).Step.Request
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if r.UID != 0 || r.GID != 0 || len(r.Groups) != len(groups) || r.RemapRoot {
		t.Errorf("Read = %+v; want a request of root's, with this process's groups", r)
	}
	if !read(t, message(4711)).Rootless {
		t.Error("Read does not say that nobody is root")
	}
}

func TestReadErrors(t *testing.T) {
	if c, err := Read(strings.NewReader("{"), 0); err == nil || !strings.HasPrefix(err.Error(), "internal error: ") {
		t.Errorf("Read = %+v, %v; want an error", c, err)
	}
}
