// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"testing"
)

func TestHint(t *testing.T) {
	plain := errors.New("plain")
	inner := WithHint(plain, "inner")
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"none", plain, ""},
		{"attached", inner, "inner"},
		{"wrapped", fmt.Errorf("get image: %w", inner), "inner"},
		{"nearest to the cause", WithHint(fmt.Errorf("get image: %w", inner), "outer"), "inner"},
		{"far away", WithHint(fmt.Errorf("a: %w", fmt.Errorf("b: %w", plain)), "outer"), "outer"},
		{"joined", errors.Join(plain, inner), "inner"},
		{"first of the joined", errors.Join(inner, WithHint(plain, "second")), "inner"},
		{"joined without", WithHint(errors.Join(plain, plain), "outer"), "outer"},
		{"joined with", WithHint(errors.Join(plain, inner), "outer"), "inner"},
		{"two verbs", fmt.Errorf("%w, then %w", plain, inner), "inner"},
		{"nil", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Hint(tt.err); got != tt.want {
				t.Errorf("Hint(%v) = %q; want %q", tt.err, got, tt.want)
			}
		})
	}
}

func TestWithHint(t *testing.T) {
	if err := WithHint(nil, "advice"); err != nil {
		t.Errorf("WithHint(nil) = %v; want nil", err)
	}
	cause := errors.New("cause")
	if err := WithHint(cause, "advice"); err.Error() != "cause" || !errors.Is(err, cause) {
		t.Errorf("WithHint = %q; want the text and identity of its cause", err)
	}
}

func TestLine(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"get image", "get image"},
		{" two\nlines\n", "two; lines"},
		{"carriage\rreturn", "carriage?return"},
		{"tab\tbell\a nul\x00", "tab?bell? nul?"},
		{"\x1b[2Jcleared", "?[2Jcleared"},
		{"c1 \u009b2J", "c1 ?2J"}, // another way to write ESC [
		{"delete\x7f", "delete?"},
		{"Grüße, 世界", "Grüße, 世界"},
		{"latin1 \xe9", "latin1 \ufffd"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			if got := Line(errors.New(tt.in)); got != tt.want {
				t.Errorf("Line(%q) = %q; want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestFormat(t *testing.T) {
	err := errors.Join(errors.New("one"), WithHint(errors.New("two"), "do this"))
	want := "brolga: error: one; two\nbrolga: hint: do this\n"
	if got := Format("brolga: ", err); got != want {
		t.Errorf("Format = %q; want %q", got, want)
	}
	if got := Format("", errors.New("one")); got != "error: one\n" {
		t.Errorf("Format = %q; want one line", got)
	}
}
