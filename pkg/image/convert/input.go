// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/squash"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// firstLayer is the descriptor of the lowest layer.
const firstLayer = 5

// input is an image as its user's descriptors have it.
type input struct {
	squash.Input
	manifest, config *os.File
}

// readManifest reads the manifest and collects the layers.
func readManifest(digest string) (input, error) {
	in := input{manifest: os.NewFile(3, "the manifest"), config: os.NewFile(4, "the configuration")}
	manifest, err := readDescriptor(in.manifest)
	if err != nil {
		return in, fmt.Errorf("read manifest: %w", err)
	}
	if got := layout.Digest(manifest); got != digest {
		return in, fmt.Errorf("manifest %s is corrupt: its content has digest %s", digest, got)
	}
	m, index, err := layout.Parse(manifest)
	if err == nil && index != nil {
		err = errors.New("it is an index")
	}
	if err != nil {
		return in, fmt.Errorf("read manifest %s: %w", digest, err)
	}
	in.Manifest = m
	for i, d := range m.Layers {
		in.Layers = append(in.Layers, os.NewFile(uintptr(firstLayer+i), d.Digest))
	}
	return in, nil
}

func readDescriptor(f *os.File) ([]byte, error) {
	if f == nil {
		return nil, errors.New("its descriptor is not open")
	}
	return io.ReadAll(io.NewSectionReader(f, 0, layout.MaxManifest))
}

// readConfig takes from an image's configuration what the store keeps.
func readConfig(raw []byte, wanted layout.Platform) (string, store.Config, error) {
	var doc struct {
		layout.Platform
		Config struct {
			Env        []string
			WorkingDir string
			Entrypoint []string
			Cmd        []string
			User       string
			Labels     map[string]string
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", store.Config{}, fmt.Errorf("read configuration: %w", err)
	}
	if !wanted.Runs(doc.Platform) {
		return "", store.Config{}, fmt.Errorf("%w, %s; there is %s", layout.ErrPlatform, wanted, doc.Platform)
	}
	for _, s := range append(append(doc.Config.Env, doc.Config.Entrypoint...), doc.Config.Cmd...) {
		if strings.Contains(s, "\x00") {
			return "", store.Config{}, errors.New("read configuration: a zero byte in the environment or command")
		}
	}
	conf := store.Config(doc.Config)
	if err := conf.Check(); err != nil {
		return "", store.Config{}, err
	}
	return doc.Platform.String(), conf, nil
}
