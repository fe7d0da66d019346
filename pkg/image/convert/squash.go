// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/squash"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/sandbox"
)

// squashed is what brolga squash says of an image. It comes from a process that has
// read what a user wrote, and may lie about it, as that user can.
type squashed struct {
	Platform      string
	Config        store.Config
	Passwd, Group []byte
}

// maxSquashed limits what is read of that: an image's configuration and two files.
const maxSquashed = 32 << 20

// Squashing says what Squash writes.
type Squashing struct {
	// Draft is the path of the squashfs, an empty file; Digest is that of the manifest.
	Draft, Digest string
	OneOwner      bool
	Platform      layout.Platform
	// Most is what the user may have in the store, in bytes, 0 without a limit.
	Most int64
}

// Squash writes the squashfs of an image to its draft, and says on out what it is.
//
// It is all of a conversion that reads configurations, layers and squashfs files of
// users. So it is started in a sandbox, in which there is no file but the draft and the
// programs it runs, and no network: what an image makes of it cannot
// get at the store that it will be in.
// The descriptors are those of Convert, and after them two scratch files if
// the image is a squashfs.
func Squash(ctx context.Context, conf config.Config, s Squashing, out io.Writer) error {
	debug.SetMemoryLimit(sandbox.UsualMemory)
	noteTooLarge()
	in, scratch, err := squashInput(s.Digest, s.Draft)
	if err != nil {
		return err
	}
	in.OneOwner = s.OneOwner
	var is squashed
	if is.Platform, is.Config, err = readConfig(in.Config, s.Platform); err != nil {
		return err
	}
	kept, err := squashTo(ctx, conf, in.Input, scratch, s.Draft, s.Most)
	if err != nil {
		return explainSize(err, s.Most)
	}
	is.Passwd, is.Group = kept["etc/passwd"], kept["etc/group"]
	return json.NewEncoder(out).Encode(is)
}

// squashInput reads what the image is, and takes the scratch files, if it has any.
func squashInput(digest, draft string) (in input, scratch []*os.File, err error) {
	if in, err = readManifest(digest); err != nil {
		return in, nil, err
	}
	if in.Config, err = readDescriptor(in.config); err != nil {
		return in, nil, fmt.Errorf("read configuration: %w", err)
	}
	if in.Manifest.IsSquashfs() {
		next := uintptr(firstLayer + len(in.Layers))
		scratch = []*os.File{os.NewFile(next, draft+"-copy"), os.NewFile(next+1, draft+"-layer")}
	}
	return in, scratch, nil
}

// squashTo writes the squashfs, of at most that many bytes.
func squashTo(ctx context.Context, conf config.Config, in squash.Input, scratch []*os.File, draft string, most int64) (squash.Kept, error) {
	if in.Manifest.IsSquashfs() {
		// A layer of poor compression is smaller again in the result.
		if err := limitImage(2 * most); err != nil {
			return nil, err
		}
		one := in.OneOwner
		var err error
		if in, err = squash.Unpack(ctx, in, scratch[0], scratch[1], conf.Sqfs2tar, conf.Convert); err != nil {
			return nil, err
		}
		in.OneOwner = one
	}
	if err := limitImage(most); err != nil {
		return nil, err
	}
	return squash.Convert(ctx, in, draft, conf.Tar2sqfs, conf.Convert)
}

// inSandbox has brolga squash write the draft, of at most that many bytes, and returns
// what it says. No process is left then that could change the draft.
func inSandbox(ctx context.Context, conf config.Config, of Order, in input, draft string, most int64) (squashed, error) {
	scratch, err := squashFiles(in, draft)
	defer closeFiles(scratch)
	if err != nil {
		return squashed{}, err
	}
	self, err := os.Executable()
	if err == nil {
		err = command.Adopt()
	}
	if err != nil {
		return squashed{}, err
	}
	args := []string{"squash", "--config", of.ConfigPath, "--platform", of.Platform.String(), "--most", strconv.FormatInt(most, 10)}
	if of.OneOwner {
		args = append(args, "--own")
	}
	// It ends itself before, unless an image has taken it over.
	limit := 2*time.Duration(conf.Convert.Timeout) + time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	said := bounded{left: maxSquashed}
	cmd := command.Cmd{
		Path: self, Args: append(args, draft, in.Manifest.Digest), Env: os.Environ(),
		Files:  slices.Concat([]*os.File{in.manifest, in.config}, in.Layers, scratch),
		Stdout: &said,
	}
	box := sandbox.Of(conf.Sandbox, sandbox.Programs(self, conf.Tar2sqfs, conf.Sqfs2tar), sandbox.Read(cmp.Or(of.ConfigPath, config.DefaultPath)), sandbox.Write(draft))
	for _, f := range scratch {
		box.Rules = append(box.Rules, sandbox.ReadOpen(f)) // sqfs2tar opens it again
	}
	cmd, done, err := box.Around(config.LauncherPath(), cmd)
	defer done()
	if err != nil {
		return squashed{}, err
	}
	err = errors.Join(command.PassOn(command.Run(ctx, cmd)), command.EndOrphans())
	var out squashed
	if err == nil {
		err = json.Unmarshal(said.Bytes(), &out)
	}
	return out, err
}

// squashFiles makes the draft, which is the only file that brolga squash may write, and
// returns scratch files for an image that needs them.
func squashFiles(in input, draft string) (scratch []*os.File, err error) {
	made, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = made.Close()
	}
	for n := 0; err == nil && in.Manifest.IsSquashfs() && n < 2; n++ {
		var f *os.File
		if f, err = squash.Scratch(draft); err == nil {
			scratch = append(scratch, f)
		}
	}
	return scratch, err
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// bounded keeps what is written to it, up to a limit.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("too long an answer")
	}
	return b.Buffer.Write(p)
}
