// SPDX-License-Identifier: Apache-2.0

package mountns

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Mount is one mount of a namespace.
type Mount struct {
	ID, Parent int
	// Point is the mount point, as the calling thread sees it.
	Point string
	// Type is the kind of the file system; Source is what is mounted, for example
	// a device.
	Type, Source string
}

// Table returns the mounts of the calling thread's namespace
// (proc_pid_mountinfo(5)).
func Table() ([]Mount, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	var all []Mount
	for line := range strings.Lines(string(text)) {
		m, err := parseMount(line)
		if err != nil {
			return nil, fmt.Errorf("read the mount table: line %q: %w", line, err)
		}
		all = append(all, m)
	}
	return all, nil
}

func parseMount(line string) (m Mount, err error) {
	before, after, _ := strings.Cut(line, " - ")
	// A source may be empty: then two spaces follow each other.
	fields, rest := strings.Fields(before), strings.Split(strings.TrimSuffix(after, "\n"), " ")
	if len(fields) < 6 || len(rest) < 3 {
		return m, fmt.Errorf("it has %d fields", len(fields)+len(rest))
	}
	if m.ID, err = strconv.Atoi(fields[0]); err != nil {
		return m, err
	}
	if m.Parent, err = strconv.Atoi(fields[1]); err != nil {
		return m, err
	}
	m.Point, m.Type, m.Source = unescape(fields[4]), rest[0], unescape(rest[1])
	return m, nil
}

// unescape replaces \040 and the like by the characters that they stand for.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+4 <= len(text) {
			if c, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// IDOf returns the number of the mount that an open file is on
// (proc_pid_fdinfo(5)).
func IDOf(f *os.File) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/thread-self/fdinfo/%d", f.Fd()))
	if err != nil {
		return 0, fmt.Errorf("find the mount of %s: %w", f.Name(), err)
	}
	for line := range strings.Lines(string(text)) {
		if number, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(number))
		}
	}
	return 0, fmt.Errorf("find the mount of %s: the kernel does not say it", f.Name())
}

// Of returns the mount that an open file is on. The file must have been opened in
// the calling thread's namespace.
func Of(f *os.File) (Mount, error) {
	id, err := IDOf(f)
	if err != nil {
		return Mount{}, err
	}
	all, err := Table()
	if err != nil {
		return Mount{}, err
	}
	for _, m := range all {
		if m.ID == id {
			return m, nil
		}
	}
	return Mount{}, fmt.Errorf("find the mount of %s: it is not in this namespace", f.Name())
}
