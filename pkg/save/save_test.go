// SPDX-License-Identifier: Apache-2.0

package save

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/identity"
)

// TestWrite checks what the program that writes gets, and that nothing of it is left
// when it fails.
func TestWrite(t *testing.T) {
	me := identity.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	if os.Geteuid() == 0 {
		me = identity.User{UID: 4711, GID: 4711}
	}
	for _, tt := range []struct{ name, script, err string }{
		{"written", `echo "$*" >/proc/self/fd/3/result`, ""},
		{"killed", `echo half >/proc/self/fd/3/$5; kill -KILL $$`, "save the container to "},
		{"refused", `echo "brolga: error: no room" >&2; exit 1`, "out: no room"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "save-test") // that the user can reach
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			client := filepath.Join(dir, "client")
			into := filepath.Join(dir, "into")
			err = errors.Join(os.WriteFile(client, []byte("#!/bin/sh\ncat\n"+tt.script+"\n"), 0o755), os.Chmod(dir, 0o755),
				os.Mkdir(into, 0o755), os.Chown(into, int(me.UID), int(me.GID)))
			if err != nil {
				t.Fatal(err)
			}
			target, err := Open(filepath.Join(into, "out"), me)
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			tree, err := os.Open("/usr")
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			joined := 0
			err = target.Write(t.Context(), Params{Client: client, Tree: tree, OnlyAsUser: true, Umask: 0o027, Join: func(pid int) error { joined = pid; return nil }})
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || joined == 0 {
				t.Errorf("Write = %v, joined %d; want the error %q", err, joined, tt.err)
			}
			left, err := filepath.Glob(filepath.Join(into, ".brolga-save-*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left are %q, %v", left, err)
			}
			if text, _ := os.ReadFile(filepath.Join(into, "result")); tt.err == "" && !strings.HasPrefix(string(text), "save --umask 027 -- .brolga-save-") {
				t.Errorf("the program got %q", text)
			}
		})
	}
}

// TestAbort checks that who ends waits for what is written to be gone.
func TestAbort(t *testing.T) {
	var p Pending
	p.Abort() // nothing is written
	ctx, done := p.Begin(t.Context())
	removed := false
	go func() {
		<-ctx.Done()
		removed = true
		done()
	}()
	if p.Abort(); !removed {
		t.Error("Abort did not wait")
	}
	p.Abort()
}
