// SPDX-License-Identifier: Apache-2.0

// Package credential finds what a user logs in to registries with, and keeps it.
//
// It reads the files that other programs keep, in this order:
//
//	$REGISTRY_AUTH_FILE                          podman, skopeo
//	$DOCKER_CONFIG/config.json                   docker; ~/.docker without the variable
//	$XDG_RUNTIME_DIR/containers/auth.json        podman login
//	$XDG_CONFIG_HOME/containers/auth.json        podman; ~/.config without the variable
//	$ENROOT_CONFIG_PATH/.credentials             enroot; $XDG_CONFIG_HOME/enroot without it
//
// The first one with an entry for the registry counts, or, where a user is
// named, with an entry of that user. An entry for REGISTRY/NAMESPACE counts
// before one for the whole registry. A credential helper that a file names is
// asked before the file's own entries.
//
// [Finder.Save] and [Finder.Erase] change the files in Docker's format, the
// first of which that is named by a variable or is Docker's own gets new
// entries. What they do not know in a file, they leave in it.
//
// Secrets are of type [Secret], which does not print what it holds. They go to
// helpers through a pipe, and nowhere else from here. A helper, and a command in
// enroot's file, runs as the user and gains no privilege (PR_SET_NO_NEW_PRIVS).
package credential

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/regular"
)

// Secret is a password or token. However it is printed, it does not show.
type Secret string

// String hides the secret from %v and its like.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "(secret)" }

// LogValue hides the secret from logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// Credential is what a registry accepts. The zero Credential is an anonymous user.
type Credential struct {
	User     string
	Password Secret
	// IdentityToken is exchanged for an access token, RegistryToken is one.
	IdentityToken, RegistryToken Secret
}

// belongsTo says whether c is of the user, "" for anyone.
func (c Credential) belongsTo(user string) bool {
	return c != Credential{} && (user == "" || c.User == user)
}

// Finder knows where a user's files are.
type Finder struct {
	// Env is the user's environment. Credential helpers get all of it.
	Env []string
}

// HelperError means that a credential helper was of no use and nothing else had
// an entry. Public images need none, so this is a reason for a failure and not
// always a failure.
type HelperError struct {
	Helper string // its program
	File   string // that names it
	Err    error
}

// Error names the program, the file and the reason.
func (e *HelperError) Error() string {
	return fmt.Sprintf("credential helper %s, named in %s: %v", e.Helper, e.File, e.Err)
}

// Unwrap returns the reason.
func (e *HelperError) Unwrap() error { return e.Err }

// ErrNoEntry means that a user was named whose credentials are nowhere.
var ErrNoEntry = errors.New("no credentials")

// Find returns the credential for a repository of a registry, HOST or HOST:PORT.
// If user is not empty, it is that user's or an error that wraps [ErrNoEntry];
// else it is zero if there is none. A [*HelperError] says that there may be one.
func (f Finder) Find(ctx context.Context, registry, repository, user string) (Credential, error) {
	var helperErr error
	for _, path := range f.dockerFiles() {
		file, err := readDocker(path)
		if err != nil {
			return Credential{}, err
		}
		c, err := f.fromDocker(ctx, file, registry, repository)
		var he *HelperError
		switch {
		case errors.As(err, &he):
			helperErr = he
		case err != nil:
			return Credential{}, err
		case c.belongsTo(user):
			return c, nil
		}
	}
	if c, err := f.fromNetrc(ctx, registry, user); err != nil || c.belongsTo(user) {
		return c, err
	}
	if helperErr == nil && user != "" {
		return Credential{}, fault.WithHint(fmt.Errorf("%w of user %q for registry %s", ErrNoEntry, user, registry),
			fmt.Sprintf("brolga login --username %s %s", user, registry))
	}
	return Credential{}, helperErr
}

func (f Finder) getenv(name string) string {
	for _, v := range f.Env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// in returns the path below the directory that a variable names, or else below
// another; "" if that is not known either.
func (f Finder) in(variable, otherwise string, elem ...string) string {
	dir := f.getenv(variable)
	if dir == "" {
		dir = otherwise
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}

func (f Finder) home(elem ...string) string { return f.in("HOME", "", elem...) }

// loginFile is the file that new entries go to.
func (f Finder) loginFile() string {
	if file := f.getenv("REGISTRY_AUTH_FILE"); file != "" {
		return file
	}
	return f.in("DOCKER_CONFIG", f.home(".docker"), "config.json")
}

// dockerFiles are those in Docker's format, whether they exist or not.
func (f Finder) dockerFiles() []string {
	return nonEmpty(
		f.getenv("REGISTRY_AUTH_FILE"),
		f.in("DOCKER_CONFIG", f.home(".docker"), "config.json"),
		f.in("XDG_RUNTIME_DIR", "", "containers", "auth.json"),
		f.in("XDG_CONFIG_HOME", f.home(".config"), "containers", "auth.json"),
	)
}

func (f Finder) netrc() string {
	return f.in("ENROOT_CONFIG_PATH", f.in("XDG_CONFIG_HOME", f.home(".config"), "enroot"), ".credentials")
}

func nonEmpty(paths ...string) []string {
	var some []string
	for _, p := range paths {
		if p != "" {
			some = append(some, p)
		}
	}
	return some
}

// maxFile limits the size of a file with credentials.
const maxFile = 4 << 20

// readFile reads a whole file. One that does not exist is empty, and so is /dev/null,
// which some name for that.
func readFile(path string) ([]byte, error) {
	if path == os.DevNull {
		return nil, nil
	}
	text, err := regular.Read(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	return text, nil
}
