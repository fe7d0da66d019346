// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/safefile"
)

// dockerHub is how Docker's file and its helpers call docker.io.
const dockerHub = "https://index.docker.io/v1/"

// dockerFile is what this package reads of a file in Docker's format.
type dockerFile struct {
	path        string
	Auths       map[string]entry
	CredHelpers map[string]string
	CredsStore  string
}

type entry struct {
	Auth          string // base64 of USER:PASSWORD
	Username      string
	Password      Secret
	IdentityToken Secret
	RegistryToken Secret
}

func readDocker(path string) (dockerFile, error) {
	d := dockerFile{path: path}
	text, err := readFile(path)
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return d, err
	}
	// The decoder's error could quote a part of the file.
	if json.Unmarshal(text, &d) != nil {
		return d, notJSON(path)
	}
	return d, nil
}

func notJSON(path string) error {
	return fmt.Errorf("read credentials: %s is not a file in the format of Docker's config.json", path)
}

// fromDocker returns the credential that a file has or leads to.
func (f Finder) fromDocker(ctx context.Context, d dockerFile, registry, repository string) (Credential, error) {
	keys := keysOf(registry, repository)
	var helperErr error
	if helper := d.helper(keys); helper != "" {
		c, err := f.ask(ctx, helper, serverAddress(registry))
		if err == nil && c != (Credential{}) {
			return c, nil
		}
		if err != nil {
			helperErr = &HelperError{programOf(helper), d.path, err}
		}
	}
	e, ok := lookup(d.Auths, keys)
	if !ok {
		return Credential{}, helperErr
	}
	c, err := e.credential()
	switch {
	case err != nil:
		return Credential{}, fmt.Errorf("read credentials: the entry of %s for %s %w", d.path, registry, err)
	case c == Credential{}:
		return Credential{}, helperErr // docker leaves an empty one when a helper has it
	}
	return c, nil
}

// helper returns the name of the credential helper for a registry, or "".
func (d dockerFile) helper(keys []string) string {
	if helper, ok := lookup(d.CredHelpers, keys); ok {
		return helper
	}
	return d.CredsStore
}

func (e entry) credential() (Credential, error) {
	c := Credential{User: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth == "" {
		return c, nil
	}
	text, err := base64.StdEncoding.DecodeString(e.Auth)
	user, password, ok := strings.Cut(string(text), ":")
	if err != nil || !ok {
		return Credential{}, errors.New("is not the base64 form of USER:PASSWORD")
	}
	c.User, c.Password = user, Secret(strings.TrimRight(password, "\x00"))
	return c, nil
}

// keysOf returns what an entry for the repository can be called, best first.
func keysOf(registry, repository string) []string {
	keys := []string{registry}
	for part := range strings.SplitSeq(repository, "/") {
		if part != "" {
			keys = append(keys, keys[len(keys)-1]+"/"+part)
		}
	}
	slices.Reverse(keys)
	return keys
}

// lookup returns the value of the first key that m has, in one of its spellings.
func lookup[V any](m map[string]V, keys []string) (value V, ok bool) {
	for _, key := range keys {
		if value, ok := m[key]; ok {
			return value, true
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if canonical(k) == key {
				return m[k], true
			}
		}
	}
	return value, false
}

// canonical returns a key without scheme and version of the API, and docker.io
// for all its names.
func canonical(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key = strings.TrimSuffix(key, "/")
	key = strings.TrimSuffix(strings.TrimSuffix(key, "/v1"), "/v2")
	host, rest, nested := strings.Cut(key, "/")
	if isDockerHub(host) {
		host = "docker.io"
	}
	if nested {
		return host + "/" + rest
	}
	return host
}

func isDockerHub(host string) bool {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io", "auth.docker.io":
		return true
	}
	return false
}

// serverAddress is how docker calls a registry.
func serverAddress(registry string) string {
	if registry == "docker.io" {
		return dockerHub
	}
	return registry
}

// Save keeps a credential with a user's name and password for a registry and
// returns where: the file, or the credential helper that the file names.
func (f Finder) Save(ctx context.Context, registry string, c Credential) (string, error) {
	path := f.loginFile()
	if path == "" {
		return "", errors.New("save credentials: HOME is not set")
	}
	d, err := readDocker(path)
	if err != nil {
		return "", err
	}
	where := path
	text := []byte("{}") // as docker leaves an entry that a helper has
	if helper := d.helper(keysOf(registry, "")); helper != "" {
		where = "the credential helper " + programOf(helper)
		if err := f.store(ctx, helper, serverAddress(registry), c); err != nil {
			return "", &HelperError{programOf(helper), path, err}
		}
	} else {
		login := base64.StdEncoding.EncodeToString([]byte(c.User + ":" + string(c.Password)))
		text = fmt.Appendf(nil, `{"auth":%q}`, login)
	}
	err = edit(path, func(auths map[string]json.RawMessage) bool {
		remove(auths, registry)
		auths[serverAddress(registry)] = text
		return true
	})
	if err != nil {
		return "", fmt.Errorf("save credentials: %w", err)
	}
	return where, nil
}

// Erase removes the entries for a registry from the files in Docker's format
// and from the helpers they name, and returns from which. Left is the file of
// another format that still has one, or "".
func (f Finder) Erase(ctx context.Context, registry string) (from []string, left string, err error) {
	var errs []error
	for _, path := range f.dockerFiles() {
		d, err := readDocker(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if helper := d.helper(keysOf(registry, "")); helper != "" {
			gone, err := f.erase(ctx, helper, serverAddress(registry))
			if err != nil {
				errs = append(errs, &HelperError{programOf(helper), path, err})
			}
			if gone {
				from = append(from, "the credential helper "+programOf(helper))
			}
		}
		if _, ok := lookup(d.Auths, []string{registry}); !ok {
			continue
		}
		err = edit(path, func(auths map[string]json.RawMessage) bool { return remove(auths, registry) })
		if err != nil {
			errs = append(errs, fmt.Errorf("remove credentials: %w", err))
			continue
		}
		from = append(from, path)
	}
	if entries, err := readNetrc(f.netrc()); err == nil && slices.ContainsFunc(entries, func(e netrcEntry) bool { return e.isFor(registry) }) {
		left = f.netrc()
	}
	return from, left, errors.Join(errs...)
}

func remove(auths map[string]json.RawMessage, registry string) bool {
	n := len(auths)
	maps.DeleteFunc(auths, func(k string, _ json.RawMessage) bool { return canonical(k) == registry })
	return len(auths) < n
}

// edit changes the entries of a file and leaves the rest of it. The new file is
// its user's alone and in place at once; if path is a link, it stays one.
func edit(path string, change func(map[string]json.RawMessage) bool) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	whole, auths := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if len(bytes.TrimSpace(text)) > 0 && json.Unmarshal(text, &whole) != nil {
		return notJSON(path)
	}
	if raw, ok := whole["auths"]; ok && json.Unmarshal(raw, &auths) != nil {
		return notJSON(path)
	}
	if auths == nil { // null
		auths = map[string]json.RawMessage{}
	}
	if !change(auths) {
		return nil
	}
	if whole["auths"], err = json.Marshal(auths); err != nil {
		return err
	}
	if text, err = json.MarshalIndent(whole, "", "\t"); err != nil {
		return err
	}
	return replace(path, append(text, '\n'))
}

func replace(path string, text []byte) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return safefile.Replace(path, text, 0o600, ".brolga-")
}
