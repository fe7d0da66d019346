// SPDX-License-Identifier: Apache-2.0

package mountset

import (
	"testing"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/request"
)

func TestActive(t *testing.T) {
	on, off := map[string]string{"com.a": "true"}, map[string]string{"com.a": "false"}
	for _, tt := range []struct {
		name, use, annotation string
		asked                 bool
		annotations           map[string]string
		want                  string
	}{
		{"asked for", "", "", true, nil, "asked"},
		{"not asked for", "", "", false, nil, ""},
		{"not asked for, in words", config.UseAsked, "", false, nil, ""},
		{"for all", config.UseAlways, "", false, nil, "given"},
		{"for some images", config.UseImage, "", false, nil, "given"},
		{"annotated", "", "com.a=true", false, on, "asked"},
		{"annotated with another value", "", "com.a=true", false, off, ""},
		{"for all, annotated with another value", config.UseAlways, "com.a=true", false, off, ""},
		{"for all, without the annotation", config.UseAlways, "com.a=true", false, nil, "given"},
		{"asked for, annotated with another value", "", "com.a=true", true, off, "asked"},
		{"annotated with nothing", "", "com.a=", false, map[string]string{"com.a": ""}, "asked"},
		{"no annotation, and one without a name", "", "", false, map[string]string{"": ""}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := request.MountSet{MountSet: config.MountSet{Use: tt.use, Annotation: tt.annotation}, Asked: tt.asked}
			r := request.Request{Hooks: request.Hooks{MountSets: []request.MountSet{set}, Annotations: tt.annotations}}
			got := ""
			for _, s := range active(r) {
				got = map[bool]string{true: "asked", false: "given"}[s.Asked]
			}
			if got != tt.want || (Hook{}).Wanted(r) != (tt.want != "") {
				t.Errorf("active = %q; want %q", got, tt.want)
			}
		})
	}
}
