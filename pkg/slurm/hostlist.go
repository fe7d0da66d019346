// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/budget"
)

// Limits of what a list may stand for. They count the names, and not the text: a few
// bytes can stand for millions of names, or for long ones.
const (
	// maxNodes is more than any cluster has.
	maxNodes = 1 << 16
	// maxName is the longest name of a host (RFC 1035, section 2.3.4).
	maxName = 255
	// maxNames is the size in bytes of all names of a list.
	maxNames = 2 << 20
	// maxBrackets is how many brackets a name may have, one for each dimension of a
	// network.
	maxBrackets = 16
)

var (
	errTooMany = fmt.Errorf("more than %d nodes", maxNodes)
	errName    = fmt.Errorf("a name of more than %d bytes", maxName)
	errNames   = fmt.Errorf("names of more than %d bytes in all", maxNames)
)

// ParseHostlist expands one of Slurm's lists such as "n[1-3,07],login" in its order.
func ParseHostlist(text string) ([]string, error) {
	var all names
	for text != "" {
		var item string
		item, text = cutItem(text)
		more, err := expand(item, maxBrackets)
		if err == nil {
			err = all.add(more.list...)
		}
		if err != nil {
			return nil, fmt.Errorf("host list %q: %w", budget.Shorten(item), err)
		}
	}
	return all.list, nil
}

// names are the names of hosts, within the limits.
type names struct {
	list []string
	size int
}

func (n *names) add(more ...string) error {
	if len(n.list)+len(more) > maxNodes {
		return errTooMany
	}
	for _, name := range more {
		if len(name) > maxName {
			return errName
		}
		if n.size += len(name); n.size > maxNames {
			return errNames
		}
	}
	n.list = append(n.list, more...)
	return nil
}

// cutItem cuts a list at its first comma that is in no brackets.
func cutItem(text string) (item, rest string) {
	inside := false
	for i, c := range text {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == ',' && !inside:
			return text[:i], text[i+1:]
		}
	}
	return text, ""
}

// expand expands one item, which may have so many brackets.
func expand(item string, brackets int) (all names, err error) {
	prefix, rest, ok := strings.Cut(item, "[")
	switch {
	case item == "" || strings.ContainsRune(prefix, ']'):
		return all, errors.New("malformed")
	case !ok:
		return all, all.add(item)
	case brackets == 0:
		return all, fmt.Errorf("more than %d brackets in a name", maxBrackets)
	}
	ranges, suffix, ok := strings.Cut(rest, "]")
	if !ok {
		return all, errors.New("a bracket is not closed")
	}
	ends := names{list: []string{""}}
	if suffix != "" {
		if ends, err = expand(suffix, brackets-1); err != nil {
			return all, err
		}
	}
	for r := range strings.SplitSeq(ranges, ",") {
		numbers, err := expandRange(r)
		if err != nil {
			return all, err
		}
		if len(all.list)+len(numbers)*len(ends.list) > maxNodes {
			return all, errTooMany
		}
		if err := all.join(prefix, numbers, ends.list); err != nil {
			return all, err
		}
	}
	return all, nil
}

// join adds all names that begin with the prefix, have one of the numbers, and then end.
func (n *names) join(prefix string, numbers, ends []string) error {
	for _, number := range numbers {
		for _, end := range ends {
			if len(prefix)+len(number)+len(end) > maxName {
				return errName
			}
			if err := n.add(prefix + number + end); err != nil {
				return err
			}
		}
	}
	return nil
}

// expandRange expands "7" or "007-010", whose numbers have the width of the first.
func expandRange(text string) ([]string, error) {
	from, to, ok := strings.Cut(text, "-")
	if len(from) > maxName || len(to) > maxName {
		return nil, errName
	}
	if !ok && from != "" && strings.Trim(from, "0123456789") == "" {
		return []string{from}, nil // it may be larger than any integer
	}
	first, err1 := strconv.ParseUint(from, 10, 63)
	last, err2 := strconv.ParseUint(to, 10, 63)
	switch {
	case err1 != nil || err2 != nil || last < first:
		return nil, fmt.Errorf("%q is no range of numbers", budget.Shorten(text))
	case last-first >= maxNodes:
		return nil, errTooMany
	}
	var all names
	for n := first; n <= last; n++ {
		if err := all.add(fmt.Sprintf("%0*d", len(from), n)); err != nil {
			return nil, err
		}
	}
	return all.list, nil
}

// Hostlist writes names as Slurm does, in their order: "n[1-3,7]".
func Hostlist(names []string) string {
	var items []string
	for i := 0; i < len(names); {
		prefix := strings.TrimRight(names[i], "0123456789")
		end := i + 1
		for end < len(names) && strings.TrimRight(names[end], "0123456789") == prefix && prefix != names[end] {
			end++
		}
		if end == i+1 || prefix == names[i] {
			items, i = append(items, names[i]), i+1
			continue
		}
		var numbers []string
		for _, name := range names[i:end] {
			numbers = append(numbers, name[len(prefix):])
		}
		items, i = append(items, prefix+"["+ranges(numbers)+"]"), end
	}
	return strings.Join(items, ",")
}

// ranges writes numbers that follow each other as ranges.
func ranges(numbers []string) string {
	var items []string
	for i := 0; i < len(numbers); {
		end := i + 1
		for end < len(numbers) && follows(numbers[end-1], numbers[end], numbers[i]) {
			end++
		}
		item := numbers[i]
		if end > i+1 {
			item += "-" + numbers[end-1]
		}
		items, i = append(items, item), end
	}
	return strings.Join(items, ",")
}

// follows reports whether a range that begins with first has b next to a.
func follows(a, b, first string) bool {
	n, err := strconv.ParseUint(a, 10, 63)
	return err == nil && n < math.MaxInt64 && b == fmt.Sprintf("%0*d", len(first), n+1)
}
