// SPDX-License-Identifier: Apache-2.0

package option

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// Mount is one entry of --container-mounts.
type Mount struct {
	// Source is a path on the host, absolute or relative to the step's working
	// directory, or [Tmpfs] or [Umount], which are no paths.
	Source string
	// Target is an absolute path in the container.
	Target string
	// Flags are mount flags as the runtime specification spells them, checked.
	Flags []string
}

// Sources that are no paths.
const (
	// Tmpfs is an empty file system in memory.
	Tmpfs = "tmpfs"
	// Umount takes back what an earlier entry, or the site, mounts at Target.
	Umount = "umount"
)

// IsRelative tells whether the source depends on the working directory.
func (m Mount) IsRelative() bool {
	return m.Source != Tmpfs && m.Source != Umount && !strings.HasPrefix(m.Source, "/")
}

// ParseMounts parses the value of --container-mounts. All faulty entries are
// reported.
func ParseMounts(value string) ([]Mount, error) {
	var mounts []Mount
	var errs []error
	for more := true; more; {
		var parts []string
		var length int
		var err error
		parts, length, more, err = cutEntry(value)
		var m Mount
		if err == nil {
			m, err = parseMount(parts)
		}
		if err == nil {
			mounts = append(mounts, m)
		} else {
			errs = append(errs, fmt.Errorf("--%s: %q: %w", Mounts, value[:length], err))
		}
		value = value[min(length+1, len(value)):]
	}
	return mounts, errors.Join(errs...)
}

// String returns the mount as an entry of --container-mounts.
func (m Mount) String() string {
	text := Escape(m.Source) + ":" + Escape(m.Target)
	if len(m.Flags) > 0 {
		text += ":" + strings.Join(m.Flags, "+")
	}
	return text
}

// cutEntry takes the first entry off a list: its parts, which colons separate, and
// its length. More tells whether a comma and another entry follow.
func cutEntry(list string) (parts []string, length int, more bool, err error) {
	for rest := list; ; rest = rest[1:] {
		var part string
		part, rest, err = cutPart(rest)
		if err != nil {
			return nil, len(list), false, err
		}
		parts = append(parts, part)
		if rest == "" || rest[0] == ',' {
			return parts, len(list) - len(rest), rest != "", nil
		}
	}
}

// cutPart takes a part off an entry, up to a colon, a comma or the end. In double
// quotes, which stand around the whole part, both belong to it.
func cutPart(text string) (part, rest string, err error) {
	end := cutset(text, ":,")
	if !strings.HasPrefix(text, `"`) {
		return unescape(text[:end]), text[end:], nil
	}
	end = 1 + cutset(text[1:], `"`)
	if end == len(text) {
		return "", "", errors.New("the closing double quote is missing")
	}
	if rest = text[end+1:]; rest != "" && rest[0] != ':' && rest[0] != ',' {
		return "", "", errors.New("text follows a closing double quote")
	}
	return quoted.Replace(text[1:end]), rest, nil
}

// cutset returns the place of the first of the characters that no backslash
// precedes, or the length of text.
func cutset(text, characters string) int {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case strings.IndexByte(characters, text[i]) >= 0:
			return i
		}
	}
	return len(text)
}

func parseMount(parts []string) (Mount, error) {
	if len(parts) > 3 {
		return Mount{}, errors.New("want SRC[:DST[:FLAGS]]")
	}
	m := Mount{Source: parts[0], Target: parts[0]}
	if len(parts) > 1 {
		m.Target = parts[1]
	}
	if m.Source == "" {
		return Mount{}, errors.New("source is empty")
	}
	allowed := mountFlags
	switch {
	case m.Source == Tmpfs:
		allowed = tmpfsFlags
	case m.Source == Umount:
		allowed = nil
	case !strings.HasPrefix(m.Source, "/") && !strings.HasPrefix(m.Source, "."):
		return Mount{}, fault.WithHint(fmt.Errorf("source %q does not start with / or .", m.Source), sourceHint(m.Source))
	}
	if !strings.HasPrefix(m.Target, "/") {
		return Mount{}, fmt.Errorf("destination %q is not an absolute path", m.Target)
	}
	if len(parts) == 3 {
		flags, err := parseMountFlags(parts[2], allowed)
		if err != nil {
			return Mount{}, err
		}
		m.Flags = flags
	}
	return m, nil
}

// sourceHint says what is meant, perhaps, by a source that is no path.
func sourceHint(source string) string {
	_, isFlag := mountFlags[source]
	switch {
	case isFlag:
		return "flags of one mount are separated by +, as in /data:/data:ro+noexec"
	case strings.HasPrefix(source, "~"), strings.HasPrefix(source, "$"):
		return `no shell has replaced it here: write the path, or "$HOME/data:/data" in double quotes`
	}
	return "what is in the working directory begins with ./"
}

// mountFlags are the flags of a bind mount, each with the group of which only
// one may be given.
var mountFlags = map[string]string{
	"ro": "access", "rw": "access",
	// Not "bind": without what is mounted there, a mount point would show what
	// the host keeps below it, such as the /tmp that a job's own one covers.
	"rbind":  "bind",
	"rslave": "propagation", "rprivate": "propagation", "slave": "propagation", "private": "propagation",
	"nosuid": "nosuid", "nodev": "nodev", "noexec": "noexec",
	Squashfs: "type",
}

// Squashfs is the flag of a mount whose source is a squashfs file, the content of
// which is mounted.
const Squashfs = "sqsh"

// tmpfsFlags are those of a tmpfs; names that end with "=" take a value.
var tmpfsFlags = map[string]string{
	"ro": "access", "rw": "access", "nosuid": "nosuid", "nodev": "nodev", "noexec": "noexec",
	"size=": "size", "mode=": "mode",
}

func parseMountFlags(text string, allowed map[string]string) ([]string, error) {
	var flags []string
	groups := map[string]string{}
	for _, flag := range strings.Split(text, "+") {
		name, value, hasValue := strings.Cut(flag, "=")
		if hasValue {
			name += "="
		}
		group, known := allowed[name]
		if !known {
			return nil, fmt.Errorf("unknown flag %q; flags are separated by +", flag)
		}
		if err := checkFlagValue(name, value); err != nil {
			return nil, err
		}
		if other, given := groups[group]; given && other != flag {
			return nil, fmt.Errorf("flags %s and %s contradict each other", other, flag)
		}
		groups[group] = flag
		flags = append(flags, flag)
	}
	if _, given := groups["type"]; given && len(flags) > 1 {
		return nil, fmt.Errorf("flag %s stands alone: such a mount is read-only", Squashfs)
	}
	return flags, nil
}

func checkFlagValue(name, value string) error {
	switch name {
	case "size=":
		if !config.IsTmpfsSize(value) {
			return fmt.Errorf("size %q: want a size such as 2g or 25%%", value)
		}
	case "mode=":
		if mode, err := strconv.ParseUint(value, 8, 32); err != nil || mode > 0o1777 {
			return fmt.Errorf("mode %q: want an octal number such as 0700", value)
		}
	}
	return nil
}

// Namespaces that a container may have for itself, in the order that tasks join.
var Namespaces = []string{"net", "ipc", "uts", "pid"}

// ParseNamespaces parses the value of --container-unshare. The result is in the
// order of [Namespaces].
func ParseNamespaces(text string) ([]string, error) {
	var errs []error
	given := split(text, ',')
	for _, name := range given {
		if !slices.Contains(Namespaces, name) {
			errs = append(errs, fmt.Errorf("--%s: %q is not one of %s", Unshare, name, strings.Join(Namespaces, ", ")))
		}
	}
	var all []string
	for _, name := range Namespaces {
		if slices.Contains(given, name) {
			all = append(all, name)
		}
	}
	return all, errors.Join(errs...)
}

// EnvEdit is one entry of --container-env.
type EnvEdit struct {
	Name string
	// Value is nil when the step's own value shall win over the image's.
	Value *string
	// Remove takes the variable away.
	Remove bool
}

// ParseEnv parses the value of --container-env. A comma that a backslash
// precedes belongs to a value. All faulty entries are reported.
func ParseEnv(text string) ([]EnvEdit, error) {
	var edits []EnvEdit
	var errs []error
	for _, entry := range split(text, ',') {
		name, value, hasValue := strings.Cut(unescape(entry), "=")
		bare, remove := strings.CutPrefix(name, "-")
		if !config.IsEnvName(bare) || remove && hasValue {
			errs = append(errs, fmt.Errorf("--%s: %q is not the name of a variable", Env, name))
			continue
		}
		edit := EnvEdit{Name: bare, Remove: remove}
		if hasValue {
			edit.Value = &value
		}
		edits = append(edits, edit)
	}
	return edits, errors.Join(errs...)
}

// Pulls are the values of --container-pull; the first is the default.
var Pulls = []string{"missing", "always", "never"}

// ParsePull checks the value of --container-pull.
func ParsePull(text string) (string, error) {
	if !slices.Contains(Pulls, text) {
		return "", fmt.Errorf("--%s: %q is not one of %s", Pull, text, strings.Join(Pulls, ", "))
	}
	return text, nil
}

// ParseAnnotations parses the value of --container-annotation. All faulty
// entries are reported; of a key given twice the last value counts.
func ParseAnnotations(text string) (map[string]string, error) {
	all := map[string]string{}
	var errs []error
	for _, entry := range split(text, ',') {
		key, value, _ := strings.Cut(unescape(entry), "=")
		if key == "" || strings.ContainsFunc(key, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
			errs = append(errs, fmt.Errorf("--%s: %q: want KEY=VALUE", Annotation, entry))
			continue
		}
		all[key] = value
	}
	return all, errors.Join(errs...)
}

// Escape is the opposite of what the parsers do with backslashes.
func Escape(text string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`).Replace(text)
}

// split cuts text at each separator that no backslash precedes. Backslashes
// stay; unescape removes them.
func split(text string, separator byte) []string {
	var parts []string
	start := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case separator:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:])
}

// unescape removes the backslash before a comma, a colon or a backslash, and
// leaves every other one: it is part of a name.
func unescape(text string) string {
	if strings.IndexByte(text, '\\') < 0 {
		return text
	}
	return plain.Replace(text)
}

// The ways to use a container's name; the first is the default.
const (
	NameAuto   = "auto"
	NameCreate = "create"
	NameExec   = "exec"
	NameNoExec = "no_exec"
)

// maxContainerName is shorter than any file system's limit, and as much as anyone
// types.
const maxContainerName = 64

// IsStep tells whether the name of a container is that of a job step.
func IsStep(name string) bool {
	job, step, ok := strings.Cut(name, ".")
	return ok && isNumber(job) && (isNumber(step) || step == "batch" || step == "interactive")
}

func isNumber(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

// ParseName parses the value of --container-name.
func ParseName(text string) (name, how string, err error) {
	name, how, given := strings.Cut(text, ":")
	if !given {
		how = NameAuto
	}
	var errs []error
	if ways := []string{NameAuto, NameCreate, NameExec, NameNoExec}; !slices.Contains(ways, how) {
		errs = append(errs, fmt.Errorf("--%s: %q is not one of %s", Name, how, strings.Join(ways, ", ")))
	}
	switch {
	case name == "":
		errs = append(errs, fmt.Errorf("--%s: the name is empty", Name))
	case len(name) > maxContainerName:
		errs = append(errs, fmt.Errorf("--%s: %.20q...: the name is longer than %d characters", Name, name, maxContainerName))
	case strings.Trim(name, nameCharacters) != "" || strings.Contains("._-", name[:1]):
		errs = append(errs, fmt.Errorf("--%s: %q: want letters, digits, _, - and dots, a letter or digit first", Name, name))
	case IsStep(name) && (how == NameCreate || how == NameNoExec):
		errs = append(errs, fmt.Errorf("--%s: %s is a job step, whose container can only be joined: leave :%s out", Name, name, how))
	}
	return name, how, errors.Join(errs...)
}

const nameCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

// What backslashes mean outside and inside of double quotes.
var (
	plain  = strings.NewReplacer(`\\`, `\`, `\,`, `,`, `\:`, `:`)
	quoted = strings.NewReplacer(`\\`, `\`, `\,`, `,`, `\:`, `:`, `\"`, `"`)
)

// ParseSave checks the value of --container-save and tells whether every node
// writes a file of its own.
func ParseSave(text string) (everywhere bool, err error) {
	var errs []error
	if strings.HasSuffix(text, "/") {
		errs = append(errs, fmt.Errorf("--%s: %q is a directory: want the name of a file", Save, text))
	}
	for rest := text; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			break
		}
		switch {
		case after == "" || !strings.Contains("njsN%", after[:1]):
			errs = append(errs, fmt.Errorf("--%s: %q: want %%n, %%N, %%j, %%s or %%%% for what begins with %%", Save, text))
			return false, errors.Join(errs...)
		case after[0] == 'n' || after[0] == 'N':
			everywhere = true
		}
		rest = after[1:]
	}
	return everywhere, errors.Join(errs...)
}
