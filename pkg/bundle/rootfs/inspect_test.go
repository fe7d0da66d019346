// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenFile(t *testing.T) {
	host := makeHost(t, []entry{{path: "file", mode: 0o644}})
	image := makeImage(t, append([]entry{
		{path: "private", mode: 0o600},
		{path: "to-private", link: "private"},
		{path: "to-file", link: "../../../../../../target/old"},
		{path: "to-host", link: host + "/file"},
		{path: "magic", link: "/proc/self/exe"},
		{path: "mounted", mode: 0o644},
	}, imageTree...))
	inRootfs(t, image, func(r *Rootfs) error {
		if err := unix.Mkfifo(filepath.Join(r.Path, "fifo"), 0o666); err != nil {
			return err
		}
		if err := r.Mount(Mount{Source: host + "/file", Target: "/mounted"}); err != nil {
			return err
		}
		var errs []error
		for _, tt := range []struct{ path, want string }{
			{"/file", "/file"},
			{"/target/../file", "/file"},
			{"/absolute/old", "/target/old"},
			{"/climbing/old", "/target/old"},
			{"/to-file", "/target/old"},

			{"file", ""}, {"/missing", ""}, {"/target", ""}, {"/loop", ""}, {"/dangling", ""}, {"/fifo", ""}, {"/private", ""},
			{"/to-private", ""}, {"/to-host", ""}, {"/magic", ""}, {"/mounted", ""}, {"/closed/inner", ""}, {"/../../../../.." + host + "/file", ""},
		} {
			f, resolved, err := r.OpenFile(tt.path)
			if resolved != tt.want || (err == nil) != (tt.want != "") {
				errs = append(errs, fmt.Errorf("OpenFile(%s) = %s, %v; want %q", tt.path, resolved, err, tt.want))
			}
			if err != nil {
				continue
			}
			if content, err := io.ReadAll(f); err != nil || string(content) != tt.want[1:] {
				errs = append(errs, fmt.Errorf("OpenFile(%s) reads %q, %v", tt.path, content, err))
			}
			f.Close()
		}
		return errors.Join(errs...)
	})
}

// TestCover covers a file under all its names, and leaves the image as it is.
func TestCover(t *testing.T) {
	host := makeHost(t, []entry{{path: "file", mode: 0o755}})
	image := makeImage(t, append([]entry{{path: "link", link: "file"}}, imageTree...))
	inRootfs(t, image, func(r *Rootfs) error {
		f, _, err := r.OpenFile("/link")
		if err != nil {
			return err
		}
		defer f.Close()
		if err := r.Cover(f, host); err == nil {
			return errors.New("Cover with a directory = nil")
		}
		if err := r.Cover(f, host+"/missing"); err == nil {
			return errors.New("Cover with nothing = nil")
		}
		if err := r.Cover(f, host+"/file"); err != nil {
			return err
		}
		if err := r.Add(host+"/file", "/target/new"); err != nil {
			return err
		}
		var errs []error
		var want, got unix.Stat_t
		for _, name := range []string{"file", "link", "target/new"} {
			if err := errors.Join(unix.Stat(host+"/file", &want), unix.Stat(filepath.Join(r.Path, name), &got)); err != nil || got.Ino != want.Ino {
				errs = append(errs, fmt.Errorf("%s is not the host's file: %v", name, err))
			}
		}
		for _, name := range []string{"file", "target/new"} {
			errs = append(errs, expectFlags(filepath.Join(r.Path, name), "ro,nosuid,nodev"))
		}
		content, err := os.ReadFile(filepath.Join(filepath.Dir(r.Path), "lower/file"))
		if err != nil || string(content) != "file" {
			errs = append(errs, fmt.Errorf("the image's file has %q, %v", content, err))
		}
		return errors.Join(errs...)
	})
}
