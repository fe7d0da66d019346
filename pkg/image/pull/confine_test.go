// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// TestPullConfines checks that all credentials are found before a pull is confined, those
// of mirrors too, and that no registry is asked before it is.
func TestPullConfines(t *testing.T) {
	s := newServer(t)
	s.push(t, "confined", 1, 1000)
	o := s.options(t, "confined")
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	helper := "#!/bin/sh\ncat >>" + asked + "\necho >>" + asked + "\necho credentials not found in native keychain\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-x"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"credsStore": "x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Credentials = &credential.Finder{Env: []string{"PATH=" + dir + ":/usr/bin:/bin", "DOCKER_CONFIG=" + dir}}
	o.Registries = config.Registries{{Name: o.Ref.Registry, Mirrors: []string{"127.0.0.1:1"}}}
	s.reset(nil)
	refuse := errors.New("refused")
	var before string
	o.Confine = func() error {
		text, _ := os.ReadFile(asked)
		before = string(text)
		return refuse
	}
	if _, err := Pull(t.Context(), o); !errors.Is(err, refuse) || s.count("") != 0 {
		t.Errorf("Pull = %v after %d requests; want that of Confine and none", err, s.count(""))
	}
	if want := "127.0.0.1:1\n" + o.Ref.Registry + "\n"; before != want {
		t.Errorf("the helper was asked for %q; want %q", before, want)
	}
	o.Confine = func() error {
		return os.Remove(filepath.Join(dir, "docker-credential-x")) // no program may run any more
	}
	if _, err := Pull(t.Context(), o); err != nil {
		t.Error(err)
	}
	check(t, o)
	o.Confine, o.IfMissing = func() error { return refuse }, true
	if _, err := Pull(t.Context(), o); err != nil {
		t.Errorf("a pull of what is there is confined: %v", err)
	}
	o.Policy.Verify = func(layout.Evidence, string) error { return errors.New("no signature") }
	s.reset(nil)
	if _, err := Pull(t.Context(), o); !errors.Is(err, refuse) || s.count("") != 0 {
		t.Errorf("Pull = %v after %d requests for signatures; want that of Confine and none", err, s.count(""))
	}
}
