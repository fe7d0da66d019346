// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// dockerImage is an entry of the manifest.json that docker save writes.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string // names of tar files, the lowest first
}

// docker loads from an archive of docker save, and makes the manifest that it
// lacks.
func (w *loader) docker(ctx context.Context, from contents) (image, error) {
	chosen, err := w.chooseDocker(from)
	if err != nil {
		return image{}, err
	}
	config, err := from.small(chosen.Config)
	if err != nil {
		return image{}, fmt.Errorf("configuration: %w", err)
	}
	if err := w.o.Platform.Check(config); err != nil {
		return image{}, err
	}
	var conf struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &conf); err != nil {
		return image{}, fmt.Errorf("read configuration %s: %w", chosen.Config, err)
	}
	if len(conf.RootFS.DiffIDs) != len(chosen.Layers) {
		return image{}, fmt.Errorf("manifest.json lists %d layers, the configuration %d", len(chosen.Layers), len(conf.RootFS.DiffIDs))
	}
	layers, err := w.dockerLayers(ctx, from, chosen.Layers, conf.RootFS.DiffIDs)
	if err != nil {
		return image{}, err
	}
	return w.compose(config, layers)
}

// readDockerImages reads manifest.json.
func readDockerImages(from contents) ([]dockerImage, error) {
	raw, err := from.small("manifest.json")
	if errors.Is(err, errMissing) {
		return nil, errNoImage
	}
	if err != nil {
		return nil, err
	}
	var all []dockerImage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("read manifest.json: %w", err)
	}
	return all, nil
}

// dockerNames returns what the images in an archive are called.
func dockerNames(from contents) ([]string, error) {
	all, err := readDockerImages(from)
	var names []string
	for _, one := range all {
		names = append(names, one.RepoTags...)
	}
	return names, err
}

// chooseDocker returns the image in manifest.json that is meant.
func (w *loader) chooseDocker(from contents) (dockerImage, error) {
	all, err := readDockerImages(from)
	if err != nil {
		return dockerImage{}, err
	}
	var names []string
	for _, one := range all {
		names = append(names, one.RepoTags...)
		if len(all) == 1 && w.o.Ref.Tag == "" || w.o.Ref.Tag != "" && isNamed(w.o.Ref.Tag, one.RepoTags) {
			return one, nil
		}
	}
	return dockerImage{}, w.notNamed(names)
}

// dockerLayers stores the layers and returns their descriptors. A layer without
// compression must be the one that the configuration names; others are checked
// when they are decompressed.
func (w *loader) dockerLayers(ctx context.Context, from contents, names, diffIDs []string) ([]layout.Descriptor, error) {
	layers := make([]layout.Descriptor, len(names))
	err := from.each(ctx, unique(names), func(name string, r io.Reader) error {
		in := bufio.NewReaderSize(r, 1<<20)
		magic, err := in.Peek(4)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		kind, want := mediaType(magic), ""
		if kind == layout.TypeLayer {
			want = diffIDs[slices.Index(names, name)]
		}
		d, err := w.layout.Receive(in, want)
		if err != nil {
			return fmt.Errorf("layer %s: %w", name, err)
		}
		d.MediaType = kind
		for i := range names {
			if names[i] == name {
				layers[i] = d
			}
		}
		return nil
	})
	return layers, err
}

func unique(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// mediaType tells the kind of a layer by its first bytes.
func mediaType(magic []byte) string {
	switch {
	case bytes.HasPrefix(magic, []byte(gzipMagic)):
		return layout.TypeLayer + "+gzip"
	case bytes.HasPrefix(magic, []byte(zstdMagic)):
		return layout.TypeLayer + "+zstd"
	}
	return layout.TypeLayer
}
