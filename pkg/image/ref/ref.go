// SPDX-License-Identifier: Apache-2.0

// Package ref is the grammar of image names.
//
// [Parse] accepts what Docker accepts, with Docker's defaults:
//
//	[docker://]NAME[:TAG][@DIGEST]
//
// where NAME is REPOSITORY or REGISTRY/REPOSITORY; ubuntu is short for
// docker.io/library/ubuntu:latest. It also accepts the form of enroot and pyxis:
//
//	[docker://][USER@]REGISTRY#IMAGE[:TAG]
//
// USER is dropped: credentials are chosen by registry, from the user's Docker
// configuration.
//
// A [Ref] holds only characters of this grammar, so it is safe to print and to
// put in a URL. Names that begin with a scheme such as oci: or look like a path
// are recognised and refused by what they are. The package is linked into
// slurmstepd and does no input or output.
package ref

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// Ref names an image in a registry. The zero Ref names none.
type Ref struct {
	Registry   string // host or host:port, such as docker.io
	Repository string // such as library/ubuntu
	Tag        string // may be empty when there is a digest
	Digest     string // sha256:HEX, or empty
}

// String returns the canonical form, REGISTRY/REPOSITORY[:TAG][@DIGEST]. [Parse]
// gives the same Ref for it.
func (r Ref) String() string {
	if r.Digest == "" {
		return r.Name()
	}
	return r.Name() + "@" + r.Digest
}

// Name returns the canonical form without the digest.
func (r Ref) Name() string {
	name := r.Registry + "/" + r.Repository
	if r.Tag != "" {
		name += ":" + r.Tag
	}
	return name
}

const (
	defaultRegistry = "docker.io"
	officialPrefix  = "library/" // of images on docker.io that have no owner
	defaultTag      = "latest"
	maxName         = 255 // of registry and repository, as registries have it
)

// Compiled on first use: most programs that know of names never parse one, and
// some are started for every job step.
var (
	hostMatches      = matcher(`^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)
	componentMatches = matcher(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	tagMatches       = matcher(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

// maxTag is the length of a tag, as registries have it.
const maxTag = 128

func matcher(expr string) func(string) bool {
	compiled := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
	return func(s string) bool { return compiled().MatchString(s) }
}

// Parse reads an image name. Its error names the value and what is wrong.
func Parse(value string) (Ref, error) {
	if err := refuse(value); err != nil {
		return Ref{}, err
	}
	r, err := parse(strings.TrimPrefix(value, "docker://"))
	if err != nil {
		return Ref{}, fmt.Errorf("image name %q: %w", value, err)
	}
	return r, nil
}

// IsDigest says whether s is a digest, sha256: and 64 lower-case hexadecimal
// digits.
func IsDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// schemes are beginnings of names that other programs know, and that must not
// be taken for a repository of that name.
var schemes = []struct{ prefix, what string }{
	{"oci:", "OCI layouts"},
	{"oci-archive:", "OCI archives"},
	{"docker-archive:", "Docker archives"},
	{"dir:", "image directories"},
	{"docker-daemon:", "images of a Docker daemon"},
	{"dockerd://", "images of a Docker daemon"},
	{"podman://", "images of podman"},
	{"containers-storage:", "images of podman"},
	{"http://", "web addresses"},
	{"https://", "web addresses"},
}

// refuse returns an error for names of a kind that Parse does not read.
func refuse(value string) error {
	if value == "" {
		return fault.WithHint(errors.New("image name is empty"), "name an image, such as ubuntu:24.04")
	}
	const hint = "name an image in a registry, such as ubuntu:24.04 or registry.example.org/group/app:1.0"
	for _, s := range schemes {
		if strings.HasPrefix(value, s.prefix) {
			return fault.WithHint(fmt.Errorf("image name %q: %s are not supported yet by this version", value, s.what), hint)
		}
	}
	file := strings.HasSuffix(value, ".sqsh") || strings.HasSuffix(value, ".squashfs")
	if file {
		return fault.WithHint(fmt.Errorf("image name %q: squashfs files are not supported yet by this version", value), hint)
	}
	if strings.HasPrefix(value, "/") || strings.HasPrefix(value, ".") || strings.HasPrefix(value, "~") {
		return fault.WithHint(fmt.Errorf("image name %q: files and directories are not supported yet by this version", value), hint)
	}
	return nil
}

// parse reads a name without its scheme.
func parse(s string) (Ref, error) {
	if host, image, ok := strings.Cut(s, "#"); ok {
		return parseEnroot(host, image)
	}
	name, digest, hasDigest := strings.Cut(s, "@")
	name, tag, err := cutTag(name)
	if err != nil {
		return Ref{}, err
	}
	if hasDigest && !IsDigest(digest) {
		return Ref{}, fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits", digest)
	}
	host, repository, ok := strings.Cut(name, "/")
	if !ok || !isHost(host) {
		host, repository = defaultRegistry, name
	}
	return build(host, repository, tag, digest)
}

func parseEnroot(host, image string) (Ref, error) {
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	image, digest, hasDigest := strings.Cut(image, "@")
	image, tag, err := cutTag(image)
	if err != nil {
		return Ref{}, err
	}
	if hasDigest && !IsDigest(digest) {
		return Ref{}, fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits", digest)
	}
	return build(host, image, tag, digest)
}

// cutTag separates the tag, which is after a colon that is not a port's.
func cutTag(s string) (name, tag string, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.Contains(s[i:], "/") {
		return s, "", nil
	}
	if tag := s[i+1:]; len(tag) > maxTag || !tagMatches(tag) {
		return "", "", fmt.Errorf("tag %q: want up to 128 of A-Z a-z 0-9 _ . -", s[i+1:])
	}
	return s[:i], s[i+1:], nil
}

// isHost says, as Docker does, whether the first part of a name is a registry
// and not an owner on the default one.
func isHost(s string) bool {
	return strings.ContainsAny(s, ".:") || s == "localhost" || strings.ToLower(s) != s
}

func build(host, repository, tag, digest string) (Ref, error) {
	if !hostMatches(host) || !isHost(host) {
		return Ref{}, fmt.Errorf("registry %q: want HOST.DOMAIN or HOST:PORT", host)
	}
	if strings.ContainsAny(host, ".:") { // else the capital is what makes it a host
		host = strings.ToLower(host)
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = defaultRegistry
	}
	if repository == "" {
		return Ref{}, errors.New("repository is missing")
	}
	for part := range strings.SplitSeq(repository, "/") {
		if componentMatches(part) {
			continue
		}
		err := fmt.Errorf("repository %q: want lower-case letters, digits and single separators . _ - /", repository)
		if lower := strings.ToLower(repository); lower != repository {
			err = fault.WithHint(err, "repository names are lower-case: "+strings.Map(printable, lower))
		}
		return Ref{}, err
	}
	if len(host)+1+len(repository) > maxName {
		return Ref{}, fmt.Errorf("registry and repository are longer than %d characters", maxName)
	}
	if host == defaultRegistry && !strings.Contains(repository, "/") {
		repository = officialPrefix + repository
	}
	if tag == "" && digest == "" {
		tag = defaultTag
	}
	return Ref{Registry: host, Repository: repository, Tag: tag, Digest: digest}, nil
}

func printable(r rune) rune {
	if r <= ' ' || r >= 0x7f {
		return '?'
	}
	return r
}
