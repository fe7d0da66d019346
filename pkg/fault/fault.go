// SPDX-License-Identifier: Apache-2.0

// Package fault carries what a reader can do about an error along with it.
//
// Errors in Brolga are bare verb phrases with their object, wrapped with %w. A
// hint is attached where the remedy is known, which is deep in the code, and
// printed only at the edge: by the commands in cmd/ and by the shim.
//
//	brolga: error: get image ubuntu:24.04: resolve tag: 401 Unauthorized
//	brolga: hint: run "brolga pull" after logging in to the registry
package fault

import (
	"errors"
	"strings"
	"unicode"
)

// hinted is an error with advice for the person who reads it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// WithHint attaches advice to err: one sentence that says what to do, without
// a final full stop. It returns nil when err is nil.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return hinted{err, hint}
}

// Hint returns the advice that is attached nearest to the cause of err, or "".
// The nearest is the most specific.
func Hint(err error) string {
	hint := ""
	for e := err; e != nil; e = errors.Unwrap(e) {
		if h, ok := e.(hinted); ok {
			hint = h.hint
		}
		if many, ok := e.(interface{ Unwrap() []error }); ok {
			for _, one := range many.Unwrap() {
				if h := Hint(one); h != "" {
					return h
				}
			}
			break
		}
	}
	return hint
}

// Line returns the text of err on one line, so that it stays one line in a
// terminal, in Slurm's log and in syslog. Joined errors are separated by "; ".
func Line(err error) string {
	return Printable(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}

// Printable returns text with question marks for control characters, which an
// image or a registry may have put there.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}

// Format returns what a user sees of err: the line "error: ..." and, where
// there is advice, the line "hint: ...". Lines end with a newline and start
// with prefix, for example "brolga: ".
func Format(prefix string, err error) string {
	out := prefix + "error: " + Line(err) + "\n"
	if hint := Hint(err); hint != "" {
		out += prefix + "hint: " + hint + "\n"
	}
	return out
}
