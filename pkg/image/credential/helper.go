// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/brolga-hpc/brolga/pkg/command"
)

// helperTimeout is for a person who is asked to unlock something.
const helperTimeout = 2 * time.Minute

// notFound is how helpers say that they have nothing.
const notFound = "credentials not found in native keychain"

// tokenUser is whom a helper names when its secret is an identity token.
const tokenUser = "<token>"

// helperEntry is what helpers read and write.
type helperEntry struct {
	ServerURL string
	Username  string
	Secret    string // plain: it is written for the helper, and nothing else
}

func programOf(helper string) string { return "docker-credential-" + helper }

// ask gets a credential from a helper, zero if the helper has none.
func (f Finder) ask(ctx context.Context, helper, server string) (Credential, error) {
	out, err := f.helper(ctx, helper, "get", []byte(server))
	if err != nil {
		if strings.TrimSpace(string(out)) == notFound {
			return Credential{}, nil
		}
		return Credential{}, err
	}
	var e helperEntry
	if json.Unmarshal(out, &e) != nil { // its error could quote the secret
		return Credential{}, errors.New("its answer is not a credential")
	}
	if e.Username == tokenUser {
		return Credential{IdentityToken: Secret(e.Secret)}, nil
	}
	return Credential{User: e.Username, Password: Secret(e.Secret)}, nil
}

func (f Finder) store(ctx context.Context, helper, server string, c Credential) error {
	text, err := json.Marshal(helperEntry{ServerURL: server, Username: c.User, Secret: string(c.Password)})
	if err != nil {
		return err
	}
	_, err = f.helper(ctx, helper, "store", text)
	return err
}

// erase says whether the helper had something.
func (f Finder) erase(ctx context.Context, helper, server string) (bool, error) {
	if c, err := f.ask(ctx, helper, server); err != nil || c == (Credential{}) {
		return false, err
	}
	_, err := f.helper(ctx, helper, "erase", []byte(server))
	return err == nil, err
}

// helper runs a credential helper and returns what it wrote.
func (f Finder) helper(ctx context.Context, helper, verb string, input []byte) ([]byte, error) {
	program := programOf(helper)
	path, err := f.find(program)
	if err != nil {
		return nil, err
	}
	return f.run(ctx, command.Cmd{Path: path, Args: []string{verb}, Stdin: bytes.NewReader(input)})
}

// run runs a program as and for the user, and returns its output. The program gains no
// privilege: the user's files name it, and it may run on a compute node.
func (f Finder) run(ctx context.Context, c command.Cmd) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, helperTimeout, fmt.Errorf("no answer after %s", helperTimeout))
	defer cancel()
	var out bytes.Buffer
	c.Env, c.Stdout, c.NoNewPrivileges = f.Env, &out, true
	err := command.Run(ctx, c)
	var failed *command.Error
	if errors.As(err, &failed) && failed.Stderr == "" {
		err = errors.New(failed.State + reason(out.String()))
	}
	return out.Bytes(), err
}

// reason returns what a helper that failed says on its output, which is where
// they say it, unless that is a credential.
func reason(out string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if line == "" || strings.ContainsAny(out, "{}\"") {
		return ""
	}
	return fmt.Sprintf(" (%.200s)", line)
}

// find looks a program up in the user's PATH.
func (f Finder) find(program string) (string, error) {
	if strings.Contains(program, "/") {
		return "", errors.New("its name is a path")
	}
	for _, dir := range filepath.SplitList(f.getenv("PATH")) {
		path := filepath.Join(dir, program)
		if st, err := os.Stat(path); filepath.IsAbs(dir) && err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errors.New("there is no such program in PATH")
}
