// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

func TestConfigCheck(t *testing.T) {
	labels := map[string]string{}
	for i := range maxEntries + 1 {
		labels[fmt.Sprint(i)] = ""
	}
	const begin = "the image's configuration (environment, command and labels): "
	for _, tt := range []struct {
		name string
		in   Config
		err  string
	}{
		{"nothing", Config{}, ""},
		{"a long label", Config{Labels: map[string]string{"a": strings.Repeat("x", maxConfig-100)}}, ""},
		{"a label that is too long", Config{Labels: map[string]string{"a": strings.Repeat("x", maxConfig)}}, begin + "too large: the limit is 1 MiB"},
		{"a label that becomes too long", Config{Labels: map[string]string{"a": strings.Repeat("\x01", maxConfig/5)}}, begin + "too large: the limit is 1 MiB"},
		{"many variables", Config{Env: make([]string, maxEntries+1)}, begin + "10001 variables: the limit is 10000"},
		{"many words", Config{Cmd: make([]string, maxEntries+1)}, begin + "10001 words in its command: the limit is 10000"},
		{"many labels", Config{Labels: labels}, begin + "10001 labels: the limit is 10000"},
	} {
		err := tt.in.Check()
		if (err == nil) != (tt.err == "") || err != nil && (err.Error() != tt.err || fault.Hint(err) == "") {
			t.Errorf("%s: Check = %v; want %q and a hint", tt.name, err, tt.err)
		}
	}
}
