// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/option"
)

// runVerb is the verb that a test parses arguments for.
var runVerb = verb{name: "run"}

// TestRunParse checks what of a command line are options, the image and the
// command.
func TestRunParse(t *testing.T) {
	for _, tt := range []struct {
		args    string
		given   string
		command string
	}{
		{"a true", "container-image=a", "true"},
		{"a ls --all", "container-image=a", "ls --all"},
		{"--mounts=/a:/b --writable a sh", "container-mounts=/a:/b container-writable= container-image=a", "sh"},
		{"--container-mounts /a --no-container-mount-home a", "container-mounts=/a no-container-mount-home= container-image=a", ""},
		{"--mpi a sh", "container-mpi= container-image=a", "sh"},
		{"--mpi=mpich a sh", "container-mpi=mpich container-image=a", "sh"},
		{"--image=a sh -c x", "container-image=a", "sh -c x"},
		{"--env A=b -- a -x", "container-env=A=b container-image=a", "-x"},
		{"", "", ""},
	} {
		t.Run(tt.args, func(t *testing.T) {
			l := &runner{}
			if err := l.parse(runVerb, strings.Fields(tt.args)); err != nil {
				t.Fatal(err)
			}
			l.takeImage(nil)
			var given []string
			for _, g := range l.call.Given {
				given = append(given, g[0]+"="+g[1])
			}
			if got := strings.Join(given, " "); got != tt.given {
				t.Errorf("options %q; want %q", got, tt.given)
			}
			if got := strings.Join(l.command, " "); got != tt.command {
				t.Errorf("command %q; want %q", got, tt.command)
			}
		})
	}
}

// TestRunParseFile: an image that a file of the command line names leaves all
// arguments to the command; one of a variable does not.
func TestRunParseFile(t *testing.T) {
	file := option.Set{option.Image: "b"}
	for _, tt := range []struct {
		args []string
		file option.Set
		want []string
	}{
		{[]string{"--environment=e", "sh"}, file, []string{"sh"}},
		{[]string{"--environment=e", "a", "sh"}, option.Set{}, []string{"sh"}},
		{[]string{"a", "sh"}, file, []string{"sh"}},
	} {
		l := &runner{}
		if err := l.parse(runVerb, tt.args); err != nil {
			t.Fatal(err)
		}
		l.takeImage(tt.file)
		if !slices.Equal(l.command, tt.want) {
			t.Errorf("%q: command %q; want %q", tt.args, l.command, tt.want)
		}
	}
}

// TestRunParseErrors: what is about jobs is refused, all of it at once.
func TestRunParseErrors(t *testing.T) {
	l := &runner{}
	err := l.parse(runVerb, []string{"--inherit", "--no-container-inherit", "a"})
	if err == nil || !strings.Contains(err.Error(), "--container-inherit means nothing without Slurm\n--no-container-inherit means") {
		t.Errorf("parse = %v; want both refused", err)
	}
}

// TestTakeCommand checks what is executed: docker's choice without a command, and
// srun's with one.
func TestTakeCommand(t *testing.T) {
	both := store.Config{Entrypoint: []string{"/entry", "-e"}, Cmd: []string{"cmd", "c"}}
	for _, tt := range []struct {
		name       string
		image      store.Config
		command    []string
		said, want bool // about the entrypoint
		executed   string
		err        bool
	}{
		{"none given", both, nil, false, false, "/entry -e cmd c", false},
		{"none given, no entrypoint wanted", both, nil, true, false, "cmd c", false},
		{"none given, only an entrypoint", store.Config{Entrypoint: both.Entrypoint}, nil, false, false, "/entry -e", false},
		{"given", both, []string{"ls"}, false, false, "ls", false},
		{"given, entrypoint wanted", both, []string{"ls"}, true, true, "/entry -e ls", false},
		{"given, the image has nothing", store.Config{}, []string{"ls"}, false, false, "ls", false},
		{"nothing at all", store.Config{}, nil, false, false, "", true},
		{"nothing wanted", store.Config{Entrypoint: both.Entrypoint}, nil, true, false, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &runner{command: tt.command, entrypoint: tt.said}
			l.request.Entrypoint = tt.want
			err := l.takeCommand(image.Image{Meta: store.Meta{Config: tt.image}})
			if (err != nil) != tt.err {
				t.Fatalf("takeCommand = %v", err)
			}
			words := l.command
			if l.request.Entrypoint {
				words = slices.Concat(tt.image.Entrypoint, words)
			}
			if got := strings.Join(words, " "); err == nil && got != tt.executed {
				t.Errorf("executes %q; want %q", got, tt.executed)
			}
			if err == nil && l.request.Command != words[0] {
				t.Errorf("the helper is told %q", l.request.Command)
			}
		})
	}
}
