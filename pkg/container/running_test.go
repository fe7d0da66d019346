// SPDX-License-Identifier: Apache-2.0

package container

import (
	"reflect"
	"testing"
)

func TestLabel(t *testing.T) {
	want := Label{
		Node: "n1", Step: "5.batch", Name: "x", Job: 5, UID: 4711, Image: "docker.io/library/a@sha256:0",
		Workdir: "/w", Env: []string{"PATH=/bin", "A=b=c\ne"}, Kinds: []string{"net", "user"},
	}
	text, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseLabel(text); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("label = %+v, %v; want %+v", got, err, want)
	}
	if _, err := parseLabel([]byte("uid=x\x00")); err == nil {
		t.Error("a malformed label is read")
	}
}
