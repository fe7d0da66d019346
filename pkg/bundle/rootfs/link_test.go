// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLink(t *testing.T) {
	host := makeHost(t, []entry{{path: "dir/", mode: 0o777}})
	image := makeImage(t, imageTree)
	inRootfs(t, image, func(r *Rootfs) error {
		if err := r.Mount(Mount{Source: host + "/dir", Target: "/mounted"}); err != nil {
			return err
		}
		var errs []error
		for _, tt := range []struct{ path, at, want, err string }{
			{path: "/new/dir/link", at: "new/dir/link", want: "TARGET"},
			{path: "/absolute/link", at: "target/link", want: "TARGET"},
			{path: "/climbing/../in", at: "in", want: "TARGET"},
			{path: "/../../../../up", at: "up", want: "TARGET"},
			{path: "/dangling", at: "dangling", want: "TARGET"},
			{path: "/dangling", at: "dangling", want: "TARGET"},
			{path: "/file", at: "file"},
			{path: "/target", at: "target"},

			{path: "/mounted/link", at: "mounted/link", err: "make link /mounted/link: the directory is the host's"},
			{path: "/mounted/new/link", at: "mounted/new", err: "make link /mounted/new/link: the directory is the host's"},
			{path: "/file/link", at: "file", err: "make link /file/link: "},
			{path: "/loop/link", at: "loop", want: "loop", err: "make link /loop/link: "},
		} {
			err := r.Link(tt.path, "TARGET")
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				errs = append(errs, fmt.Errorf("Link(%s) = %w; want %q", tt.path, err, tt.err))
			}
			if got, _ := os.Readlink(filepath.Join(r.Path, tt.at)); got != tt.want {
				errs = append(errs, fmt.Errorf("Link(%s) makes %q at %s; want %q", tt.path, got, tt.at, tt.want))
			}
		}
		if entries, err := os.ReadDir(host + "/dir"); err != nil || len(entries) > 0 {
			errs = append(errs, fmt.Errorf("on the host there are %v, %w", entries, err))
		}
		return errors.Join(errs...)
	})
}
