// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"os"
	"testing"
)

// TestAll checks that each directory beside this file is a hook of its name
// and says what it is.
func TestAll(t *testing.T) {
	listed := map[string]bool{}
	for _, h := range All() {
		if listed[h.Name()] {
			t.Errorf("hook %s is listed twice", h.Name())
		}
		listed[h.Name()] = true
		if d := h.Describe(); d.Moment == "" || d.When == "" || d.Effect == "" {
			t.Errorf("hook %s is described by %+v", h.Name(), d)
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
