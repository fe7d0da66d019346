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
// USER chooses among the credentials for that registry; it is no part of the
// image's name. And it accepts what is in files, in the words of skopeo:
//
//	oci:DIR[:REF]              an OCI image layout
//	oci-archive:FILE[:REF]     the same as a tar file
//	docker-archive:FILE[:REF]  what docker save and podman save write
//	dir:PATH                   a root directory
//	/FILE, ./FILE, ../FILE     a squashfs
//
// A path ends at its first colon, if a REF may follow. @DIGEST may end all of
// these except for directories: it is what the source must contain.
//
// A [Ref] has no control characters, so it is safe to print; without a path it
// is also safe to put in a URL. Names that other programs know, or that look
// like a file, are refused with a hint. The package is linked into slurmstepd
// and does no input or output.
package ref

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// Kind is where an image comes from.
type Kind string

// The kinds of image. [Registry] is the zero value.
const (
	Registry      Kind = ""
	OCI           Kind = "oci"
	OCIArchive    Kind = "oci-archive"
	DockerArchive Kind = "docker-archive"
	Directory     Kind = "dir"
	Squashfs      Kind = "squashfs" // has no prefix: it is a path
)

// Ref names an image. The zero Ref names none.
type Ref struct {
	Kind Kind `json:",omitempty"`
	// User chooses among the credentials for the registry; it is no part of the
	// image's name.
	User string `json:",omitempty"`

	Registry   string // host or host:port, such as docker.io; of this kind only
	Repository string // such as library/ubuntu; likewise
	Tag        string // may be empty when there is a digest or a path
	Digest     string // sha256:HEX, or empty

	Path string `json:",omitempty"` // of a file or directory
}

// String returns the canonical form, without User: [REGISTRY/REPOSITORY[:TAG] or
// a path with what stands around it, and @DIGEST. [Parse] gives the same Ref for
// it, less User.
func (r Ref) String() string {
	if r.Digest == "" {
		return r.Name()
	}
	return r.Name() + "@" + r.Digest
}

// Argument returns the form in which another program is told the name: [Parse]
// gives the same Ref for it, User included.
func (r Ref) Argument() string {
	if r.User == "" {
		return r.String()
	}
	return r.User + "@" + strings.Replace(r.String(), "/", "#", 1)
}

// Name returns the canonical form without User and digest.
func (r Ref) Name() string {
	name := r.Origin()
	if r.Tag != "" {
		name += ":" + r.Tag
	}
	return name
}

// Origin returns the canonical form without tag and digest, which is what a
// site's policy is about.
func (r Ref) Origin() string {
	switch r.Kind {
	case Registry:
		return r.Registry + "/" + r.Repository
	case Squashfs:
		return r.Path
	}
	return string(r.Kind) + ":" + r.Path
}

// IsLocal says whether the image is in a file or directory, at Path.
func (r Ref) IsLocal() bool { return r.Kind != Registry }

// IsRelative says whether the image's place depends on a working directory.
func (r Ref) IsRelative() bool { return r.IsLocal() && !filepath.IsAbs(r.Path) }

// In returns r with a relative path resolved from the directory dir.
func (r Ref) In(dir string) Ref {
	if r.IsRelative() {
		r.Path = filepath.Join(dir, r.Path)
	}
	return r
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
	// Robot accounts have names such as $oauthtoken and robot$group+name, people
	// also mail addresses. A name that began like a path or an option would not
	// be read back.
	userMatches = matcher(`^[A-Za-z0-9$_](?:[A-Za-z0-9$_.@+=~!-]*[A-Za-z0-9$_])?$`)
)

// maxTag is the length of a tag, as registries have it.
const maxTag = 128

func matcher(expr string) func(string) bool {
	compiled := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
	return func(s string) bool { return compiled().MatchString(s) }
}

// Parse reads an image name. Its error names the value and what is wrong, but shows no
// password that the value has.
func Parse(value string) (Ref, error) {
	if err := refusePassword(value); err != nil {
		return Ref{}, err
	}
	if err := refuse(value); err != nil {
		return Ref{}, err
	}
	r, err := parse(value)
	if err != nil {
		return Ref{}, fmt.Errorf("image name %q: %w", value, err)
	}
	return r, nil
}

// parse chooses the grammar.
func parse(value string) (Ref, error) {
	for _, kind := range prefixed {
		if rest, ok := strings.CutPrefix(value, string(kind)+":"); ok {
			return parseLocal(kind, rest)
		}
	}
	if isPath(value) {
		return parseLocal(Squashfs, value)
	}
	r, err := parseRegistry(strings.TrimPrefix(value, "docker://"))
	if err != nil {
		return Ref{}, err
	}
	// Written again, it would be a file.
	if host, _, hasPort := strings.Cut(r.Registry, ":"); hasPort && slices.Contains(prefixed, Kind(host)) {
		return Ref{}, fault.WithHint(fmt.Errorf("%s: begins the name of a file", host),
			"name the registry with its domain, or write "+host+": in small letters for a file")
	}
	return r, nil
}

// prefixed are the kinds whose names begin with the kind and a colon.
var prefixed = []Kind{OCI, OCIArchive, DockerArchive, Directory}

// isPath says whether s can only be meant as the name of a file.
func isPath(s string) bool {
	return strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../")
}

// maxPath is the length of a path, as Linux has it.
const maxPath = 4095

// parseLocal reads what follows the prefix of a file or directory.
func parseLocal(kind Kind, s string) (Ref, error) {
	r := Ref{Kind: kind, Path: s}
	if kind != Directory {
		if i := strings.LastIndexByte(s, '@'); i >= 0 && IsDigest(s[i+1:]) {
			r.Path, r.Digest = s[:i], s[i+1:]
		}
	}
	if kind != Directory && kind != Squashfs {
		r.Path, r.Tag, _ = strings.Cut(r.Path, ":")
		if strings.HasSuffix(s, ":") {
			return Ref{}, errors.New("the name of the image in it is missing after the colon")
		}
	}
	switch {
	case r.Path == "":
		return Ref{}, errors.New("the path is missing")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return Ref{}, errors.New("control characters in a path")
	case len(s) > maxPath:
		return Ref{}, fmt.Errorf("the path is longer than %d bytes", maxPath)
	}
	r.Path = clean(kind, r.Path)
	return r, nil
}

// clean makes a path canonical. That of a squashfs keeps what shows that it is
// one.
func clean(kind Kind, path string) string {
	path = filepath.Clean(path)
	if kind == Squashfs && !isPath(path) {
		path = "./" + path
	}
	return path
}

// IsDigest says whether s is a digest, sha256: and 64 lower-case hexadecimal
// digits.
func IsDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// others are beginnings of names that other programs know, and that must not be
// taken for a repository of that name.
var others = []struct{ prefix, what, hint string }{
	{"docker-daemon:", "images of a Docker daemon", saveHint},
	{"dockerd://", "images of a Docker daemon", saveHint},
	{"podman://", "images of podman", saveHint},
	{"containers-storage:", "images of podman", saveHint},
	{"http://", "web addresses", registryHint},
	{"https://", "web addresses", registryHint},
	{"shub://", "images of Singularity Hub", registryHint},
	{"library://", "images of Sylabs", registryHint},
	{"oras://", "images of Apptainer", registryHint},
}

const (
	registryHint = "name an image in a registry, such as ubuntu:24.04 or registry.example.org/group/app:1.0"
	saveHint     = `save it with "docker save" or "podman save" and name the file: docker-archive:FILE`
)

// files are ends of names that must not be taken for those of repositories, and
// how such a file is named.
var files = []struct{ suffix, prefix string }{
	{".sqsh", "./"},
	{".squashfs", "./"},
	{".sqfs", "./"},
	{".tar", "docker-archive:"},
	{".tar.gz", "docker-archive:"},
	{".tgz", "docker-archive:"},
	{".tar.zst", "docker-archive:"},
}

// refuse returns an error for names of a kind that Parse does not read.
func refuse(value string) error {
	if value == "" {
		return fault.WithHint(errors.New("image name is empty"), "name an image, such as ubuntu:24.04")
	}
	for _, o := range others {
		if strings.HasPrefix(value, o.prefix) {
			return fault.WithHint(fmt.Errorf("image name %q: %s are not supported", value, o.what), o.hint)
		}
	}
	if strings.HasPrefix(value, "~") {
		return fault.WithHint(fmt.Errorf("image name %q: the shell has not replaced ~", value), "write $HOME in place of ~")
	}
	return refuseFile(value)
}

// refusePassword returns an error for a name such as USER:PASSWORD@REGISTRY/IMAGE, in the
// form of URLs. Docker refuses that, too.
func refusePassword(value string) error {
	start, end := password(value)
	if start == end {
		return nil
	}
	host := value[end+1:]
	host = host[:strings.IndexAny(host, "/#")]
	return fault.WithHint(fmt.Errorf("image name %q: a password does not belong in a name", Shown(value)),
		fmt.Sprintf(`keep it with "brolga login %s", and leave it out of the name`, strings.Map(printable, host)))
}

// Shown returns what may be shown of a value that should be a name: all but a password.
func Shown(value string) string {
	start, end := password(value)
	if start == end {
		return value
	}
	return value[:start] + "***" + value[end:]
}

// password returns where the password of a value is, an empty range if it has none.
func password(value string) (start, end int) {
	name := value
	if i := strings.LastIndexByte(value, '@'); i >= 0 && IsDigest(value[i+1:]) {
		name = value[:i]
	}
	user := 0
	if i := strings.Index(name, "://"); i >= 0 {
		user = i + len("://")
	}
	// The password may have any of these characters itself.
	end = strings.LastIndexByte(name, '@')
	if end < user || isPath(name) || !strings.ContainsAny(name[end:], "/#") {
		return 0, 0
	}
	colon := strings.IndexByte(name[user:end], ':')
	if colon < 0 || slices.Contains(prefixed, Kind(name[user:user+colon])) {
		return 0, 0
	}
	return user + colon + 1, end
}

// refuseFile returns an error for the name of a file that is not marked as one.
func refuseFile(value string) error {
	if isPath(value) || strings.Contains(value, ":") {
		return nil
	}
	if strings.HasSuffix(value, ".sif") {
		return fault.WithHint(fmt.Errorf("image name %q: files of Apptainer are not supported", value), registryHint)
	}
	for _, f := range files {
		if strings.HasSuffix(value, f.suffix) {
			return fault.WithHint(fmt.Errorf("image name %q: a repository or a file?", value),
				"a file is named "+f.prefix+strings.Map(printable, value))
		}
	}
	if value == "." || value == ".." {
		return fault.WithHint(fmt.Errorf("image name %q: that is a directory", value), "a root directory is named dir:"+value)
	}
	return nil
}

// parseRegistry reads a name without its scheme.
func parseRegistry(s string) (Ref, error) {
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
	var user string
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		if user, host = host[:i], host[i+1:]; !userMatches(user) {
			return Ref{}, fmt.Errorf("user %q: want letters, digits and punctuation", user)
		}
	}
	image, digest, hasDigest := strings.Cut(image, "@")
	image, tag, err := cutTag(image)
	if err != nil {
		return Ref{}, err
	}
	if hasDigest && !IsDigest(digest) {
		return Ref{}, fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits", digest)
	}
	r, err := build(host, image, tag, digest)
	r.User = user
	return r, err
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
		err := fmt.Errorf("registry %q: want HOST.DOMAIN or HOST:PORT", host)
		if strings.HasPrefix(host, "docker:") {
			err = fault.WithHint(err, "leave docker: out, or write docker://")
		}
		return Ref{}, err
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
	if host == defaultRegistry && !strings.Contains(repository, "/") {
		repository = officialPrefix + repository
	}
	if len(host)+1+len(repository) > maxName {
		return Ref{}, fmt.Errorf("registry and repository are longer than %d characters", maxName)
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
