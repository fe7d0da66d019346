// SPDX-License-Identifier: Apache-2.0

package named

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// Most nodes have no container, and the end of a job there has nothing to do. Whoever
// finds that out says so in a file of the node's, for the plugin (spank/epilog.c),
// which knows no more of the site than the path of its configuration:
//
//	config.RunDir/unnamed/NODE   the path of the configuration by which there is none
//
// It is written only while nobody opens a container, and removed before one is there:
// both have a lock on the directory. A node that boots loses it, and so looks once for
// what it has kept.
func notesDir() string { return filepath.Join(config.RunDir, "unnamed") }

func lockNotes(how int) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(notesDir()), 0o755); err != nil {
		return nil, err
	}
	// Who can open a directory can lock it.
	if err := os.Mkdir(notesDir(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := trust.Check(notesDir()); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(notesDir(), unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := safefile.Lock(f, how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// forgetNone makes sure that the end of a job looks for containers. Nobody says that
// there is none until what is returned is closed.
func forgetNone(node string) (*os.File, error) {
	dir, err := lockNotes(unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	err = unix.Unlinkat(int(dir.Fd()), node, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("remove %s/%s: %w", dir.Name(), node, err), dir.Close())
	}
	return dir, nil
}

// NoteNone says that the node has no container, if that is so, to those who end jobs
// with the same path of a configuration, which may be "". Identity: root.
func NoteNone(configPath string, site config.Named, node string) error {
	dir, err := lockNotes(unix.LOCK_EX | unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if some, err := hasSome(site, node); some || err != nil {
		return err
	}
	return safefile.Replace(filepath.Join(notesDir(), node), []byte(configPath), 0o644, ".new-")
}

// hasSome tells whether the node has a container, or what is left of one.
func hasSome(site config.Named, node string) (bool, error) {
	dir, err := nodeDir(site, node)
	if err != nil {
		return true, err
	}
	users, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	for _, user := range users {
		entries, readErr := os.ReadDir(filepath.Join(dir, user.Name()))
		err = errors.Join(err, readErr)
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), suffixLock) {
				return true, nil
			}
		}
	}
	return err != nil, err
}
