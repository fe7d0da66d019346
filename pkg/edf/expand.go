// SPDX-License-Identifier: Apache-2.0

package edf

import (
	"fmt"
	"strings"
)

// expand replaces variables. A dollar sign that no brace follows is itself.
func (f file) expand(text string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			return out.String() + text, nil
		}
		inside, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", fmt.Errorf("%q: no } after ${", text)
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			out.WriteString(literal + "${" + inside + "}")
			text = after
			continue
		}
		value, err := f.variable(inside)
		if err != nil {
			return "", err
		}
		out.WriteString(before + value)
		text = after
	}
}

// variable returns the value of NAME or NAME:-TEXT.
func (f file) variable(text string) (string, error) {
	name, fallback, hasFallback := strings.Cut(text, ":-")
	if name == "" || strings.ContainsAny(name, "=:${") {
		return "", fmt.Errorf("${%s}: want ${NAME} or ${NAME:-TEXT}", text)
	}
	value, ok := f.search.Getenv(name)
	switch {
	case value != "", ok && !hasFallback:
		return value, nil
	case hasFallback:
		return fallback, nil
	}
	return "", fmt.Errorf("variable %s is not set; ${%[1]s:-} allows that", name)
}
