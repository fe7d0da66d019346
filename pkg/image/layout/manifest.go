// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// Media types of what a tag can point to.
const (
	TypeIndex          = "application/vnd.oci.image.index.v1+json"
	TypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	TypeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// Media types of what a manifest of ours refers to.
const (
	TypeConfig = "application/vnd.oci.image.config.v1+json"
	TypeLayer  = "application/vnd.oci.image.layer.v1.tar" // and +gzip, +zstd
)

// RefName is the annotation in index.json that holds an image's name.
const RefName = "org.opencontainers.image.ref.name"

// Source is the annotation in index.json of an image that was put there from a
// file: what identifies the content of that (package source).
const Source = "io.github.brolga-hpc.source"

// TypeSquashfs is the media type of a layer that is a squashfs. An image of that
// kind has no other layer.
const TypeSquashfs = "application/vnd.brolga-hpc.image.layer.v1.squashfs"

// PulledAt is the annotation in index.json that says when a registry last said
// that the name means this digest.
const PulledAt = "io.github.brolga-hpc.pulled"

const (
	maxNesting = 3
	maxLayers  = 1000
	// maxListed limits any list of descriptors but that of index.json.
	maxListed = 10000
	// maxPlatforms limits how many platforms an error names.
	maxPlatforms = 10
)

// ErrPlatform means that an image does not exist for the platform asked for.
var ErrPlatform = errors.New("no image for this platform")

// Descriptor points to a blob.
type Descriptor struct {
	MediaType   string            `json:"mediaType,omitempty"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *Platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// ArtifactType is what a manifest that is no image is for.
	ArtifactType string `json:"artifactType,omitempty"`
}

// Platform is what an image runs on.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// Host returns the platform of this program.
func Host() Platform { return Platform{OS: "linux", Architecture: runtime.GOARCH} }

// String returns OS/ARCHITECTURE[/VARIANT].
func (p Platform) String() string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// ParsePlatform reads what [Platform.String] writes. The system may be left out.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", s}
	}
	for _, part := range parts {
		if part == "" || len(parts) > 3 || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
			return Platform{}, fmt.Errorf("platform %q: want [OS/]ARCHITECTURE[/VARIANT], such as linux/arm64", s)
		}
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	if name, ok := architectures[p.Architecture]; ok {
		p.Architecture = name
	}
	return p, nil
}

// PlatformOr returns the platform that text names, or fallback if it is empty.
func PlatformOr(text string, fallback Platform) (Platform, error) {
	if text == "" {
		return fallback, nil
	}
	return ParsePlatform(text)
}

// NotCached is the error for an image that is not to be pulled.
func NotCached(name string) error {
	return fault.WithHint(fmt.Errorf("%s is not in your cache, and is not to be pulled", name),
		"pull it before: brolga pull "+name)
}

// architectures are the kernel's names for those that images name otherwise.
var architectures = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

// variants lists, best first, the variants of an architecture that every
// machine we run on can execute.
var variants = map[string][]string{
	"amd64": {"", "v1"},
	"arm64": {"", "v8"},
	"arm":   {"v7", "v6", "v5", ""},
}

// rank says how well an image for platform q suits p: 0 is best, -1 is not.
func (p Platform) rank(q Platform) int {
	if p.OS != q.OS || p.Architecture != q.Architecture {
		return -1
	}
	if known, ok := variants[p.Architecture]; ok && p.Variant == "" {
		return slices.Index(known, q.Variant)
	}
	if p.Variant == q.Variant {
		return 0
	}
	return -1
}

// Runs says whether p runs an image that is said to be for q, as far as system
// and architecture tell. An image that does not say runs everywhere.
func (p Platform) Runs(q Platform) bool {
	return (q.OS == "" || q.OS == p.OS) && (q.Architecture == "" || q.Architecture == p.Architecture)
}

// Check returns an error that wraps [ErrPlatform] if p does not run the image
// with the given configuration.
func (p Platform) Check(config []byte) error {
	var is Platform
	if err := json.Unmarshal(config, &is); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if !p.Runs(is) {
		return fmt.Errorf("%w, %s; there is %s", ErrPlatform, p, is)
	}
	return nil
}

// Index is an image index: several images, here by name or by platform.
type Index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []Descriptor `json:"manifests"`
}

// Find returns the descriptor of the image with the given name, or nil.
func (x *Index) Find(name string) *Descriptor {
	for i := range x.Manifests {
		if x.Manifests[i].Annotations[RefName] == name {
			return &x.Manifests[i]
		}
	}
	return nil
}

// FindSource returns the descriptor of the image with the given name if it was
// put there from a file that was identified by stamp, or nil. An empty stamp
// identifies nothing.
func (x *Index) FindSource(name, stamp string) *Descriptor {
	if d := x.Find(name); d != nil && stamp != "" && d.Annotations[Source] == stamp {
		return d
	}
	return nil
}

// Select returns the descriptor of the image that suits p best. If there is
// none, the error wraps [ErrPlatform] and lists what there is.
func (x *Index) Select(p Platform) (Descriptor, error) {
	best := -1
	bestRank := 0
	var has []string
	for i, d := range x.Manifests {
		if d.Platform == nil {
			if len(x.Manifests) == 1 {
				best = i
			}
			continue
		}
		rank := p.rank(*d.Platform)
		if rank >= 0 && (best < 0 || rank < bestRank) {
			best, bestRank = i, rank
		}
		if d.Platform.OS != "unknown" && len(has) <= maxPlatforms {
			has = addPlatform(has, *d.Platform)
		}
	}
	if best < 0 {
		if len(has) == 0 {
			has = append(has, "none")
		}
		if len(has) > maxPlatforms {
			has[maxPlatforms] = "..."
		}
		return Descriptor{}, fmt.Errorf("%w, %s; there is %s", ErrPlatform, p, strings.Join(has, ", "))
	}
	if err := x.Manifests[best].check(); err != nil {
		return Descriptor{}, err
	}
	return x.Manifests[best], nil
}

// addPlatform adds the name of a platform to those that an error tells.
func addPlatform(has []string, p Platform) []string {
	name := budget.Shorten(p.String())
	if slices.Contains(has, name) {
		return has
	}
	return append(has, name)
}

// Manifest is the manifest of one image for one platform. [Parse] has checked
// that its digests and sizes have the right form.
type Manifest struct {
	Digest string // of the manifest itself
	Raw    []byte
	Config Descriptor
	Layers []Descriptor // lowest first
}

// Size returns the size of the manifest itself.
func (m Manifest) Size() int64 { return int64(len(m.Raw)) }

// IsSquashfs says whether the image is a squashfs already.
func (m Manifest) IsSquashfs() bool {
	return len(m.Layers) == 1 && m.Layers[0].MediaType == TypeSquashfs
}

// Compose returns the manifest of an image with the given configuration and
// layers. The same image gives the same manifest.
func Compose(config Descriptor, layers []Descriptor) (Manifest, error) {
	raw, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        Descriptor   `json:"config"`
		Layers        []Descriptor `json:"layers"`
	}{2, TypeManifest, config, layers})
	if err != nil {
		return Manifest{}, err
	}
	m, _, err := Parse(raw)
	return m, err
}

// Blobs returns what the manifest refers to, the configuration first.
func (m Manifest) Blobs() []Descriptor { return append([]Descriptor{m.Config}, m.Layers...) }

// Digests returns the digests by which a site may know the image: those of top,
// which its name points to, and of the manifest, and those of its parts.
func (m Manifest) Digests(top string) (whole, parts []string) {
	for _, d := range m.Blobs() {
		parts = append(parts, d.Digest)
	}
	return []string{top, m.Digest}, parts
}

// Parse reads an image manifest, or an index, of OCI or Docker (version 2,
// schema 2). The index is nil when it is a manifest.
func Parse(raw []byte) (Manifest, *Index, error) {
	if len(raw) > MaxManifest {
		return Manifest{}, nil, budget.Large(MaxManifest)
	}
	var doc struct {
		SchemaVersion int
		MediaType     string
		Config        *descriptor
		Layers        descriptors
		Manifests     descriptors
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return Manifest{}, nil, fmt.Errorf("not a manifest: %w", err)
	}
	switch {
	case doc.SchemaVersion == 1:
		return Manifest{}, nil, errors.New("Docker's manifest version 2, schema 1 is not supported: push the image again with a current tool")
	case doc.SchemaVersion != 2:
		return Manifest{}, nil, errors.New("not an image manifest")
	case doc.Manifests != nil && (doc.Config != nil || doc.Layers != nil):
		return Manifest{}, nil, errors.New("both a manifest and an index")
	case doc.MediaType == TypeIndex || doc.MediaType == TypeDockerIndex || (doc.MediaType == "" && doc.Config == nil):
		return Manifest{}, &Index{SchemaVersion: 2, MediaType: doc.MediaType, Manifests: doc.Manifests}, nil
	case doc.MediaType != "" && doc.MediaType != TypeManifest && doc.MediaType != TypeDockerManifest:
		return Manifest{}, nil, fmt.Errorf("media type %q is not an image", budget.Shorten(doc.MediaType))
	case doc.Config == nil:
		return Manifest{}, nil, errors.New("the manifest has no configuration")
	case len(doc.Layers) > maxLayers:
		return Manifest{}, nil, fmt.Errorf("%d layers, more than %d", len(doc.Layers), maxLayers)
	}
	m := Manifest{Digest: Digest(raw), Raw: raw, Config: Descriptor(*doc.Config), Layers: doc.Layers}
	for _, d := range m.Blobs() {
		if err := d.check(); err != nil {
			return Manifest{}, nil, err
		}
	}
	for _, d := range m.Layers {
		if err := d.checkLayer(); err != nil {
			return Manifest{}, nil, err
		}
	}
	if m.Config.Size > MaxManifest {
		return Manifest{}, nil, fmt.Errorf("the configuration is %w", budget.Large(MaxManifest))
	}
	return m, nil, nil
}

func (d Descriptor) check() error {
	if !ref.IsDigest(d.Digest) {
		return fmt.Errorf("digest %q: want a sha256 digest", budget.Shorten(d.Digest))
	}
	if d.Size < 0 {
		return fmt.Errorf("digest %s: size %d", d.Digest, d.Size)
	}
	return nil
}

// layerTypes begin the media types of layers that are files of an image. What
// follows names the compression, which is recognised by the content.
var layerTypes = []string{TypeLayer, "application/vnd.docker.image.rootfs.diff.tar", TypeSquashfs}

// checkLayer refuses what cannot be fetched or is no tar file, such as the parts
// of a chart. A descriptor without a type is taken for a layer.
func (d Descriptor) checkLayer() error {
	switch {
	case d.MediaType == "":
		return nil
	case strings.Contains(d.MediaType, "nondistributable"), strings.Contains(d.MediaType, "foreign"):
		return fmt.Errorf("layer %s is foreign, its owner lets no registry distribute it: %q", d.Digest, budget.Shorten(d.MediaType))
	case strings.HasSuffix(d.MediaType, "+encrypted"):
		return fmt.Errorf("layer %s is encrypted: %q", d.Digest, budget.Shorten(d.MediaType))
	case !slices.ContainsFunc(layerTypes, func(t string) bool { return strings.HasPrefix(d.MediaType, t) }):
		return fmt.Errorf("not a container image: %s is %q", d.Digest, budget.Shorten(d.MediaType))
	}
	return nil
}
