// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

const (
	app    = "registry.example.org/group/app"
	hexA   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digest = "sha256:" + hexA
)

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"**", app, true},
		{"**", "/apps/a.sqsh", true},
		{"registry.example.org/**", app, true},
		{"registry.example.org/group/**", app, true},
		{"registry.example.org/group/app", app, true},
		{"registry.example.org/group/*", app, true},
		{"registry.example.org/*/app", app, true},
		{"*.example.org/**", app, true},
		{"*/**", app, true},
		{"registry.example.org/gr*p/a*", app, true},
		{"oci-archive:/apps/**", "oci-archive:/apps/x/y.tar", true},
		{"[::1]:5000/**", "[::1]:5000/app", true},

		{"registry.example.org/group", app, false},
		{"registry.example.org/*", app, false},
		{"registry.example.org/group/app/**", app, false},
		{"registry.example.org/group/app2", app, false},
		{"registry.example.org/group/ap", app, false},
		{"registry.example/**", app, false},
		{"registry.example.org/**", "registry.example.org.evil.net/group/app", false},
		{"*/group/app", "a/b/group/app", false},
		{"registry.example.org/group/ap?", app, false},
		{"registry.example.org/group/ap[p]", app, false},
		{digest, digest, false},
	} {
		t.Run(tt.pattern+" "+tt.name, func(t *testing.T) {
			if got := matches(tt.pattern, tt.name); got != tt.want {
				t.Errorf("matches = %v; want %v", got, tt.want)
			}
		})
	}
}

func TestPermit(t *testing.T) {
	for _, tt := range []struct {
		name        string
		allow, deny []string
		whole       []string
		parts       []string
		err         string
	}{
		{name: "no lists"},
		{name: "an allowed name", allow: []string{"docker.io/**", "registry.example.org/**"}},
		{name: "an allowed digest", allow: []string{digest}, whole: []string{"sha256:b", digest}},
		{name: "a digest that is not known yet", allow: []string{digest}},
		{name: "others are denied", deny: []string{"docker.io/**", digest}, whole: []string{"sha256:b"}},

		{name: "not allowed", allow: []string{"docker.io/**"}, err: "is not among those allowed on this cluster"},
		{name: "not an allowed digest", allow: []string{digest}, whole: []string{"sha256:b"}, err: "is not among those allowed"},
		{name: "a denied name", deny: []string{"registry.example.org/group/*"}, err: "is denied on this cluster (registry.example.org/group/*)"},
		{name: "a denied digest", deny: []string{digest}, whole: []string{"sha256:b", digest}, err: "is denied on this cluster (" + digest + ")"},
		{name: "a denied part", deny: []string{digest}, whole: []string{"sha256:b"}, parts: []string{"sha256:c", digest}, err: "is denied"},
		{name: "an allowed digest that is only a part", allow: []string{digest}, whole: []string{"sha256:b"}, parts: []string{digest}, err: "is not among those allowed"},
		{name: "denied although allowed", allow: []string{app}, deny: []string{"registry.example.org/**"}, err: "is denied"},
		{name: "a denied name with an allowed digest", allow: []string{digest}, deny: []string{app}, whole: []string{digest}, err: "is denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Policy{Allow: tt.allow, Deny: tt.deny}.Permit(app, tt.whole, tt.parts)
			if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), "image "+app+" "+tt.err)) {
				t.Errorf("Permit = %v; want %q", err, tt.err)
			}
		})
	}
}

// TestRuleFor: the most specific pattern decides, wherever it stands.
func TestRuleFor(t *testing.T) {
	rule := func(images string, c Check) Rule { return Rule{Images: images, Check: c, Keys: []string{"/k"}} }
	for _, tt := range []struct {
		name  string
		rules []Rule
		want  Rule
	}{
		{"none", nil, Rule{Check: Off}},
		{"none that matches", []Rule{rule("docker.io/**", Require)}, Rule{Check: Off}},
		{"all", []Rule{rule("**", Warn)}, rule("**", Warn)},
		{"the longest", []Rule{rule("**", Require), rule(app, Off), rule("registry.example.org/**", Warn)}, rule(app, Off)},
		{"the longest, in another order", []Rule{rule(app, Off), rule("registry.example.org/**", Warn), rule("**", Require)}, rule(app, Off)},
		{"a name before a pattern", []Rule{rule("registry.example.org/group/*", Off), rule(app, Require)}, rule(app, Require)},
		{
			"the strictest of equals",
			[]Rule{rule("registry.example.org/group/ap*", Warn), rule("registry.example.org/group/a*p", Require), rule("registry.example.org/group/*pp", Off)},
			rule("registry.example.org/group/a*p", Require),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Policy{Signatures: tt.rules}.RuleFor(app)
			if got.Images != tt.want.Images || got.Check != tt.want.Check {
				t.Errorf("RuleFor = %+v; want %+v", got, tt.want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		pattern, err string
	}{
		{"**", ""},
		{app, ""},
		{"registry.example.org:5000/**", ""},
		{"docker.io/**", ""},
		{"docker.io/library/ubuntu", ""},
		{digest, ""},
		{"/apps/**", ""},
		{"dir:/apps/*", ""},
		{"/Apps/Image.sqsh", ""},

		{"", "want REGISTRY/REPOSITORY"},
		{"*", "want REGISTRY/REPOSITORY"},
		{"ubuntu", "want REGISTRY/REPOSITORY"},
		{"registry.example.org", "want REGISTRY/REPOSITORY"},
		{"registry.example.org/", "want REGISTRY/REPOSITORY"},
		{app + ":1.0", "want a name without tag and digest"},
		{app + "@" + digest, "want a name without tag and digest"},
		{"registry.example.org/App", "names of images are lower-case"},
		{"index.docker.io/**", "this registry is called docker.io"},
		{"docker.io/ubuntu", "want docker.io/library/NAME or docker.io/OWNER/NAME"},
		{"registry.example.org/**/app", "** stands alone and last"},
		{"registry.example.org/a**", "** stands alone and last"},
		{"sha256:abc", "want sha256: and 64 hexadecimal digits"},
	} {
		t.Run(tt.pattern, func(t *testing.T) {
			for key, p := range map[string]Policy{
				"policy.allow": {Allow: []string{tt.pattern}},
				"policy.deny":  {Deny: []string{tt.pattern}},
			} {
				err := p.Validate()
				if tt.err == "" && err != nil {
					t.Errorf("Validate with %s = %v", key, err)
				}
				if tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), key+": ") || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("Validate with %s = %v; want %q", key, err, tt.err)
				}
			}
		})
	}
}

func TestValidateRules(t *testing.T) {
	keys := []string{"/etc/key.pub"}
	for _, tt := range []struct {
		name  string
		rules []Rule
		err   string
	}{
		{"complete", []Rule{{app, Require, keys}, {"**", Warn, keys}}, ""},
		{"off needs no keys", []Rule{{app, Off, nil}}, ""},

		{"no check", []Rule{{app, "", keys}}, `policy.signatures: "` + app + `": check = "": want require, warn or off`},
		{"another check", []Rule{{app, "yes", keys}}, `check = "yes": want require, warn or off`},
		{"no keys", []Rule{{app, Require, nil}}, "keys: want files with public keys"},
		{"relative key", []Rule{{app, Warn, []string{"k.pub"}}}, `keys: "k.pub" is not an absolute path`},
		{"no images", []Rule{{"", Off, nil}}, "want REGISTRY/REPOSITORY"},
		{"a digest", []Rule{{digest, Off, nil}}, "want a name, not a digest"},
		{"twice", []Rule{{app, Off, nil}, {app, Require, keys}}, "there is another rule for it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Policy{Signatures: tt.rules}.Validate()
			if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("Validate = %v; want %q", err, tt.err)
			}
		})
	}
}
