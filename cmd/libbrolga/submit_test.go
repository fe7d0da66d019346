// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/step"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

func TestGroupsOfProcess(t *testing.T) {
	want, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if got := groupsOfProcess(); len(got) != len(want) {
		t.Errorf("groupsOfProcess = %v; want %v", got, want)
	}
}

// message joins records as the shim does.
func message(records ...string) []byte { return []byte(strings.Join(records, "\x00") + "\x00") }

// replyTo runs answer and returns its status and the reply.
func replyTo(f func() ([]wire.Record, error)) (int, string) {
	buffer := make([]byte, 4096)
	for i := range buffer {
		buffer[i] = 'x'
	}
	rc := answer(charPointer(buffer), 4096, f)
	return int(rc), strings.TrimRight(string(buffer), "\x00") + "\x00"
}

func TestAnswer(t *testing.T) {
	long := strings.Repeat("x", 10000)
	for _, tt := range []struct {
		name string
		f    func() ([]wire.Record, error)
		rc   int
		want string
	}{
		{"records", func() ([]wire.Record, error) { return []wire.Record{{Key: "env", Value: "A=b"}}, nil }, 0, "env=A=b\x00"},
		{"nothing", func() ([]wire.Record, error) { return nil, nil }, 0, "\x00"},

		{"error", func() ([]wire.Record, error) { return nil, errors.New("no image") }, -1, "error=no image\x00"},
		{"hint", func() ([]wire.Record, error) { return nil, fault.WithHint(errors.New("a\nb"), "look") }, -1, "error=a; b\x00hint=look\x00"},
		{"reported", func() ([]wire.Record, error) { return nil, errors.Join(errReported) }, -1, "reported=1\x00"},
		{"panic", func() ([]wire.Record, error) { panic("oops") }, -1, "error=internal error: oops\x00"},
		{"panic of the runtime", func() ([]wire.Record, error) { var m map[string]int; m["a"] = 1; return nil, nil }, -1, "error=internal error: assignment to entry in nil map\x00"},
		{"unwritable", func() ([]wire.Record, error) { return []wire.Record{{Key: "env", Value: "\x00"}}, nil }, -1, "error=value of env contains a NUL byte: \"\\x00\"\x00"},
		{"too long", func() ([]wire.Record, error) { return []wire.Record{{Key: "env", Value: long}}, nil }, -1, "error=internal error: answer of 10005 bytes\x00"},
		{"long error", func() ([]wire.Record, error) { return nil, fault.WithHint(errors.New(long), long) }, -1, "error=" + long[:2041] + "\x00hint=" + long[:2041] + "\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if rc, got := replyTo(tt.f); rc != tt.rc || got != tt.want {
				t.Errorf("answer = %d, %.80q; want %d, %.80q", rc, got, tt.rc, tt.want)
			}
		})
	}
}

// client makes a script that plays the brolga command.
func client(t *testing.T, script string) config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "brolga")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.Client = path
	return c
}

func TestPull(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const answer = `echo '{"Image": "x", "Digest": "` + digest + `"}'`
	image, err := ref.Parse("ubuntu:24.04")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, script, path string
		env                []string
		err                string // substring; empty means success
	}{
		{name: "digest", script: answer},
		{name: "arguments", script: `[ "$*" = "pull --if-missing docker.io/library/ubuntu:24.04" ] && ` + answer},
		{name: "configuration", script: `[ "$*" = "pull --config /a.toml --if-missing docker.io/library/ubuntu:24.04" ] && ` + answer, path: "/a.toml"},
		{name: "environment", script: `[ "$A$HOME" = b ] && ` + answer, env: []string{"A=b"}},

		{name: "status", script: "exit 3", err: errReported.Error()},
		{name: "signal", script: "kill -KILL $$", err: "pull docker.io/library/ubuntu:24.04: ended by signal killed"},
		{name: "no digest", script: "echo ubuntu", err: `pull printed "ubuntu\n"`},
		{name: "no output", script: "", err: `pull printed ""`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := pull(client(t, tt.script), tt.path, image, []string{"--if-missing"}, tt.env)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("pull = %q, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || got != digest {
				t.Errorf("pull = %q, %v; want %s", got, err, digest)
			}
		})
	}
	missing := config.Default()
	missing.Client = "/no/such/brolga"
	if _, err := pull(missing, "", image, nil, nil); err == nil || !strings.Contains(err.Error(), "start /no/such/brolga: no such file") {
		t.Errorf("pull without client = %v; want it named", err)
	}
}

// TestSubmit checks the answer of a submission whose image has to be pulled.
func TestSubmit(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	c := client(t, `echo '{"Digest": "`+digest+`"}'`)
	path := filepath.Join(t.TempDir(), "brolga.toml")
	text := "client = '" + c.Client + "'\ncache = '" + t.TempDir() + "/{uid}'\ncontainer.allow_root = true\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := step.Parse(message("context=submit", "config="+path, "option=container-image", "value=ubuntu", "env=A=b"))
	if err != nil {
		t.Fatal(err)
	}
	const image = "docker.io/library/ubuntu:latest@" + digest
	want := []wire.Record{{Key: "env", Value: "BROLGA_PIN=" + image}, {Key: "job", Value: "BROLGA_JOB_IMAGE=" + image}}
	if got, err := submit(in); err != nil || !slices.Equal(got, want) {
		t.Errorf("submit = %q, %v; want %q", got, err, want)
	}
}
