// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/hook"
)

func TestUmaskOf(t *testing.T) {
	before := unix.Umask(0o027)
	defer unix.Umask(before)
	if got, err := umaskOf(os.Getpid()); err != nil || got != 0o027 {
		t.Errorf("umaskOf = %o, %v; want 27", got, err)
	}
	if _, err := umaskOf(1 << 30); err == nil {
		t.Error("umaskOf nobody succeeds")
	}
	if got := umaskOrStrictest(os.Getpid()); got != 0o027 {
		t.Errorf("umaskOrStrictest = %o; want 27", got)
	}
	if got := umaskOrStrictest(1 << 30); got != 0o077 {
		t.Errorf("umaskOrStrictest of nobody = %o; want 77", got)
	}
}

// guest is a sidecar that notes the tasks that it was told of.
type guest struct {
	met []int
	err error
}

func (g *guest) Task(pid int) error {
	g.met = append(g.met, pid)
	return g.err
}

func TestTellSidecars(t *testing.T) {
	broken, good := &guest{err: errors.New("no")}, &guest{}
	if err := tellSidecars([]hook.Sidecar{broken, good}, 7); !errors.Is(err, broken.err) || len(good.met) != 1 || good.met[0] != 7 {
		t.Errorf("tellSidecars = %v, and the second met %v; want all to be told", err, good.met)
	}
}
