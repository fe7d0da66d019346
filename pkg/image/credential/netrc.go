// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// netrcEntry is one machine of enroot's file.
type netrcEntry struct {
	machine, login string
	password       Secret // as written: a text, with variables, or $(COMMAND)
}

// isFor says whether an entry is for a registry. Enroot's machines have no port
// and include the server that gives out tokens, which for docker.io has a name
// of its own.
func (e netrcEntry) isFor(registry string) bool {
	host := registry
	if bare, _, err := net.SplitHostPort(registry); err == nil {
		host = bare
	}
	return e.machine == registry || e.machine == host || registry == "docker.io" && isDockerHub(e.machine)
}

// fromNetrc returns the credential of enroot's file for a registry, and for the
// user unless that is "".
func (f Finder) fromNetrc(ctx context.Context, registry, user string) (Credential, error) {
	path := f.netrc()
	if path == "" {
		return Credential{}, nil
	}
	entries, err := readNetrc(path)
	if err != nil {
		return Credential{}, err
	}
	for _, e := range entries {
		if !e.isFor(registry) || (user != "" && e.login != user) {
			continue
		}
		password, err := f.evaluate(ctx, path, string(e.password))
		if err != nil {
			return Credential{}, fmt.Errorf("read credentials: the password of %s in %s: %w", e.machine, path, err)
		}
		return Credential{User: e.login, Password: Secret(password)}, nil
	}
	return Credential{}, nil
}

func readNetrc(path string) ([]netrcEntry, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parseNetrc(string(text)), nil
}

// parseNetrc reads what netrc(5) has of machines; words it does not know are
// passed over.
func parseNetrc(text string) []netrcEntry {
	var entries []netrcEntry
	for text != "" {
		var word string
		word, text = nextWord(text)
		if word == "machine" {
			word, text = nextWord(text)
			entries = append(entries, netrcEntry{machine: word})
			continue
		}
		if len(entries) == 0 {
			continue
		}
		switch last := &entries[len(entries)-1]; word {
		case "default": // for any machine: not for us, nor for enroot
			return entries
		case "login":
			last.login, text = nextWord(text)
		case "password":
			word, text = nextWord(text)
			last.password = Secret(word)
		}
	}
	return entries
}

// nextWord cuts off the first word, which $(...) and "..." keep together. A line
// that begins with # is a comment.
func nextWord(text string) (word, rest string) {
	text = strings.TrimLeft(text, " \t\r\n")
	for strings.HasPrefix(text, "#") {
		_, text, _ = strings.Cut(text, "\n")
		text = strings.TrimLeft(text, " \t\r\n")
	}
	if strings.HasPrefix(text, `"`) {
		word, rest, _ = strings.Cut(text[1:], `"`)
		return word, rest
	}
	depth := 0
	for i, c := range text {
		switch {
		case c == '(' && (depth > 0 || strings.HasPrefix(text, "$(")):
			depth++
		case c == ')' && depth > 0:
			depth--
		case strings.ContainsRune(" \t\r\n", c) && depth == 0, c == '\n':
			return text[:i], text[i:]
		}
	}
	return text, ""
}

// variable is one whose value stands for it, if it is set.
var variable = regexp.MustCompile(`\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\})`)

// evaluate returns the password that a text means. It runs what is in $(...),
// as the user whose file it is, as enroot does.
func (f Finder) evaluate(ctx context.Context, path, text string) (string, error) {
	script, ok := strings.CutPrefix(text, "$(")
	if !ok || !strings.HasSuffix(script, ")") {
		return variable.ReplaceAllStringFunc(text, func(v string) string {
			if value := f.getenv(strings.Trim(v, "${}")); value != "" {
				return value
			}
			return v
		}), nil
	}
	if err := checkOwn(path); err != nil {
		return "", err
	}
	out, err := f.run(ctx, command.Cmd{Path: "/bin/sh", Args: []string{"-c", strings.TrimSuffix(script, ")")}})
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(out), "\r\n"), nil
}

// checkOwn returns an error if someone else could have written the file.
func checkOwn(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	if (int(owner) == os.Geteuid() || owner == 0) && st.Mode().Perm()&0o022 == 0 {
		return nil
	}
	return fault.WithHint(fmt.Errorf("a command in a file that others can write (owner %d, mode %04o) is not run", owner, st.Mode().Perm()),
		"chmod 0600 "+path)
}
