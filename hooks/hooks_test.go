// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"os"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/hook"
)

// hasStage reports whether a hook has the method of a stage.
func hasStage(h hook.Hook, stage string) (ok bool) {
	switch stage {
	case hook.AtEdit:
		_, ok = h.(hook.Editor)
	case hook.AtInspect:
		_, ok = h.(hook.Inspector)
	case hook.AtRuntime:
		_, ok = h.(hook.Actor)
	case hook.AtTask:
		_, ok = h.(hook.SidecarStarter)
	case hook.AtBarrier:
		_, ok = h.(hook.BarrierHook)
	}
	return ok
}

// TestAll checks that each directory beside this file is a hook of its name, and that
// it says what it is and does that.
func TestAll(t *testing.T) {
	listed := map[string]bool{}
	for _, h := range All() {
		if listed[h.Name()] {
			t.Errorf("hook %s is listed twice", h.Name())
		}
		listed[h.Name()] = true
		d := h.Describe()
		if d.When == "" || d.Effect == "" {
			t.Errorf("hook %s is described by %+v", h.Name(), d)
		}
		if !hasStage(h, d.Stage) {
			t.Errorf("hook %s says that its stage is %q; it has no such method, or one of another type", h.Name(), d.Stage)
		}
	}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !listed[e.Name()] {
			t.Errorf("hook %s is not in All", e.Name())
		}
	}
}
