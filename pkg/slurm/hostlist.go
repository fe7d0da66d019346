// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxNodes limits what a list of a few bytes can stand for.
const maxNodes = 1 << 17

var errTooMany = fmt.Errorf("more than %d nodes", maxNodes)

// ParseHostlist expands a list of Slurm's such as "n[1-3,07],login" in its order.
func ParseHostlist(text string) ([]string, error) {
	var all []string
	for text != "" {
		var item string
		item, text = cutItem(text)
		names, err := expand(item)
		if err == nil && len(all)+len(names) > maxNodes {
			err = errTooMany
		}
		if err != nil {
			return nil, fmt.Errorf("host list %q: %w", item, err)
		}
		all = append(all, names...)
	}
	return all, nil
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

// expand expands one item, in which brackets may come several times.
func expand(item string) ([]string, error) {
	prefix, rest, ok := strings.Cut(item, "[")
	switch {
	case item == "" || strings.ContainsRune(prefix, ']'):
		return nil, errors.New("malformed")
	case !ok:
		return []string{item}, nil
	}
	ranges, suffix, ok := strings.Cut(rest, "]")
	if !ok {
		return nil, errors.New("a bracket is not closed")
	}
	ends := []string{""}
	if suffix != "" {
		var err error
		if ends, err = expand(suffix); err != nil {
			return nil, err
		}
	}
	var all []string
	for _, r := range strings.Split(ranges, ",") {
		numbers, err := expandRange(r)
		if err != nil {
			return nil, err
		}
		if len(all)+len(numbers)*len(ends) > maxNodes {
			return nil, errTooMany
		}
		for _, n := range numbers {
			for _, end := range ends {
				all = append(all, prefix+n+end)
			}
		}
	}
	return all, nil
}

// expandRange expands "7" or "007-010", whose numbers have the width of the first.
func expandRange(text string) ([]string, error) {
	from, to, ok := strings.Cut(text, "-")
	if !ok && from != "" && strings.Trim(from, "0123456789") == "" {
		return []string{from}, nil // however long it is
	}
	first, err1 := strconv.ParseUint(from, 10, 63)
	last, err2 := strconv.ParseUint(to, 10, 63)
	switch {
	case err1 != nil || err2 != nil || last < first:
		return nil, fmt.Errorf("%q is no range of numbers", text)
	case last-first >= maxNodes:
		return nil, errTooMany
	}
	var all []string
	for n := first; n <= last; n++ {
		all = append(all, fmt.Sprintf("%0*d", len(from), n))
	}
	return all, nil
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

// follows tells whether a range that begins with first has b next to a.
func follows(a, b, first string) bool {
	n, err := strconv.ParseUint(a, 10, 63)
	return err == nil && n < math.MaxInt64 && b == fmt.Sprintf("%0*d", len(first), n+1)
}
