// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// PassOn returns the error and the hint that a brolga command printed, as if
// they were ours. The error is a [Told].
func PassOn(err error) error {
	var ce *Error
	if !errors.As(err, &ce) {
		return err
	}
	const errorTag, hintTag = "brolga: error: ", "brolga: hint: "
	var text, hint string
	for line := range strings.Lines(ce.Stderr) {
		line = strings.TrimSuffix(line, "\n")
		if s, ok := strings.CutPrefix(line, errorTag); ok {
			text, hint = s, ""
		} else if s, ok := strings.CutPrefix(line, hintTag); ok {
			hint = s
		}
	}
	if text == "" {
		return err
	}
	passed := Told{text}
	if hint == "" {
		return passed
	}
	return fault.WithHint(passed, hint)
}

// Told is what a brolga command said went wrong.
type Told struct{ text string }

func (e Told) Error() string { return e.text }
