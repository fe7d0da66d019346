// SPDX-License-Identifier: Apache-2.0

// Package policy says which images a site lets run, and which of them must be
// signed. It is pure: it decides by names and digests, and reads nothing.
//
// # Patterns
//
// A pattern is a digest, sha256:HEX, or a name without tag:
//
//	registry.example.org/group/app    this repository
//	registry.example.org/group/*      those right below; * stands for a part of a name
//	registry.example.org/**           all below; ** is the last part, or all there is
//	**                                every image
//
// Names are canonical, so the image that users call ubuntu is
// docker.io/library/ubuntu.
//
// # What it is worth
//
// A digest is a fact: it is computed from the content. A name is what the user
// says. Users own their image cache, so one who wants to can put any content
// there under any name, and a list of names alone stops mistakes, not malice. It
// is a signature that ties a name to content: see [Rule].
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// Policy is the part of the site's configuration that restricts images.
type Policy struct {
	// Allow lists patterns of images that may run; none allows all. A digest is
	// one of an index or a manifest, which say what the whole image is.
	Allow []string `toml:"allow"`
	// Deny lists patterns of images that may not run, allowed or not. A digest may
	// also be one of a configuration (the image ID) or of a layer.
	Deny []string `toml:"deny"`
	// Signatures says which images must be signed by whom.
	Signatures []Rule `toml:"signatures"`
}

// Rule says what is asked of the images of a name.
type Rule struct {
	Images string   `toml:"images"` // pattern of names
	Check  Check    `toml:"check"`
	Keys   []string `toml:"keys"` // files with public keys, any of which will do
}

// Check says what happens to an image without a valid signature.
type Check string

// The values of [Check].
const (
	Off     Check = "off"     // nobody looks
	Warn    Check = "warn"    // the user is told
	Require Check = "require" // it does not run
)

// rank orders checks by strictness; it is -1 for what is none.
func (c Check) rank() int { return slices.Index([]Check{Off, Warn, Require}, c) }

// Permit returns an error if the lists refuse the image with this name. Whole are
// the digests of what the name points to and of the manifest, parts those of the
// configuration and the layers, which any image may have. Without them they are
// not known yet, and only a name is refused.
func (p Policy) Permit(name string, whole, parts []string) error {
	const hint = "the site configuration decides which images may run; its administrators can tell more"
	for _, pattern := range p.Deny {
		if slices.Contains(whole, pattern) || slices.Contains(parts, pattern) || matches(pattern, name) {
			return fault.WithHint(fmt.Errorf("image %s is denied on this cluster (%s)", name, pattern), hint)
		}
	}
	allowed := len(p.Allow) == 0
	for _, pattern := range p.Allow {
		unknown := len(whole) == 0 && isDigest(pattern)
		allowed = allowed || unknown || slices.Contains(whole, pattern) || matches(pattern, name)
	}
	if !allowed {
		return fault.WithHint(fmt.Errorf("image %s is not among those allowed on this cluster", name), hint)
	}
	return nil
}

// RuleFor returns the rule for images with this name: that of the pattern with
// the most characters other than *. Among equals the strictest counts, and then
// the first. The zero Rule asks nothing.
func (p Policy) RuleFor(name string) Rule {
	best := Rule{Check: Off}
	for _, r := range p.Signatures {
		if !matches(r.Images, name) {
			continue
		}
		order := weight(r.Images) - weight(best.Images)
		if best.Images == "" || order > 0 || (order == 0 && r.Check.rank() > best.Check.rank()) {
			best = r
		}
	}
	return best
}

func weight(pattern string) int { return len(strings.ReplaceAll(pattern, "*", "")) }

// KeyID identifies a key by the content of its file. It is what the store notes
// with an image whose signature was checked.
func KeyID(file []byte) string {
	sum := sha256.Sum256(file)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// matches says whether a name is among those of a pattern.
func matches(pattern, name string) bool {
	if isDigest(pattern) {
		return false
	}
	parts, names := strings.Split(pattern, "/"), strings.Split(name, "/")
	if last := len(parts) - 1; parts[last] == "**" {
		parts = parts[:last]
		if len(names) <= last {
			return false
		}
		names = names[:last]
	}
	return slices.EqualFunc(parts, names, matchesPart)
}

// matchesPart compares one part of a name. Only * is special.
func matchesPart(pattern, s string) bool {
	ok, err := path.Match(strings.NewReplacer(`\`, `\\`, "[", `\[`, "?", `\?`).Replace(pattern), s)
	return ok && err == nil
}

func isDigest(pattern string) bool { return strings.HasPrefix(pattern, "sha256:") }

// Validate returns all that is wrong with p, joined, or nil.
func (p Policy) Validate() error {
	var errs []error
	for _, pattern := range p.Allow {
		errs = append(errs, about("policy.allow", pattern, validatePattern(pattern)))
	}
	for _, pattern := range p.Deny {
		errs = append(errs, about("policy.deny", pattern, validatePattern(pattern)))
	}
	seen := map[string]bool{}
	for _, r := range p.Signatures {
		err := validateRule(r)
		if seen[r.Images] {
			err = errors.Join(err, errors.New("there is another rule for it"))
		}
		seen[r.Images] = true
		errs = append(errs, about("policy.signatures", r.Images, err))
	}
	return errors.Join(errs...)
}

func about(key, pattern string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %q: %w", key, pattern, err)
}

func validateRule(r Rule) error {
	errs := []error{validatePattern(r.Images)}
	if isDigest(r.Images) {
		errs = append(errs, errors.New("want a name, not a digest"))
	}
	if r.Check.rank() < 0 {
		errs = append(errs, fmt.Errorf("check = %q: want require, warn or off", r.Check))
	}
	if r.Check.rank() > 0 && len(r.Keys) == 0 {
		errs = append(errs, errors.New("keys: want files with public keys"))
	}
	for _, key := range r.Keys {
		if !path.IsAbs(key) {
			errs = append(errs, fmt.Errorf("keys: %q is not an absolute path", key))
		}
	}
	return errors.Join(errs...)
}

// validatePattern refuses what could never match, since a rule that is never
// applied must not go unnoticed.
func validatePattern(pattern string) error {
	if hex, ok := strings.CutPrefix(pattern, "sha256:"); ok {
		if len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
			return errors.New("want sha256: and 64 hexadecimal digits")
		}
		return nil
	}
	if pattern == "**" {
		return nil
	}
	parts := strings.Split(pattern, "/")
	for i, part := range parts {
		if strings.Contains(part, "**") && (part != "**" || i < len(parts)-1) {
			return errors.New("** stands alone and last")
		}
	}
	if isFile(pattern) {
		return nil
	}
	return validateName(parts)
}

// isFile says whether a pattern is of images that are files, which are named by
// path, in most cases after a word such as oci-archive.
func isFile(pattern string) bool {
	_, file, found := strings.Cut(pattern, ":")
	return strings.HasPrefix(pattern, "/") || (found && strings.HasPrefix(file, "/"))
}

func validateName(parts []string) error {
	host, last := parts[0], parts[len(parts)-1]
	switch {
	case len(parts) < 2 || slices.Contains(parts, ""):
		return errors.New("want REGISTRY/REPOSITORY, such as registry.example.org/group/app or registry.example.org/**")
	case strings.ContainsAny(last, ":@"):
		return errors.New("want a name without tag and digest")
	case strings.ToLower(strings.Join(parts, "/")) != strings.Join(parts, "/"):
		return errors.New("names of images are lower-case")
	case host == "index.docker.io" || host == "registry-1.docker.io":
		return errors.New("this registry is called docker.io")
	case host == "docker.io" && len(parts) == 2 && !strings.Contains(last, "*"):
		return errors.New("want docker.io/library/NAME or docker.io/OWNER/NAME")
	}
	return nil
}
