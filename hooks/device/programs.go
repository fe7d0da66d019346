// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/device"
	"github.com/brolga-hpc/brolga/pkg/hook"
)

// nvidiaPrograms are the names of NVIDIA's program for hooks; the second has the
// word "hook" in front of the arguments.
const nvidiaProgram, nvidiaToolkit = "nvidia-cdi-hook", "nvidia-ctk"

// addHook adds a hook of a specification, and returns the directories whose
// libraries are to be known to the image's loader.
//
// NVIDIA's program is never run: it would execute ldconfig as root on the image.
// What it does (nvidia-container-toolkit, cmd/nvidia-cdi-hook) is done here.
func (p *plan) addHook(h device.Hook) (folders []string, err error) {
	command, flags, ok := nvidiaHook(h)
	if !ok {
		p.found.Programs = append(p.found.Programs, hook.Program{
			Origin: h.Specification, Stage: h.Stage,
			Hook: specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout},
		})
		return nil, nil
	}
	switch command {
	case "create-symlinks":
		for _, pair := range flags["link"] {
			target, path, ok := strings.Cut(pair, "::")
			if !ok || target == "" || !filepath.IsAbs(path) {
				return nil, fmt.Errorf("hook %s --link=%s: want TARGET::PATH", command, pair)
			}
			p.found.Links = append(p.found.Links, hook.Link{Path: path, Target: target})
		}
	case "update-ldcache":
		for _, folder := range flags["folder"] {
			folders = append(folders, filepath.Clean(folder))
		}
	case "enable-cuda-compat":
		for _, version := range flags["host-driver-version"] {
			p.compatible = version
		}
	case "chmod", "disable-device-node-modification":
		// Directories of devices are open to all, and nobody in the container can
		// make a device.
	default:
		p.note("CDI specification %s: ignored hook %s of %s: it is not known", h.Specification, command, h.Path)
	}
	return folders, nil
}

// nvidiaHook returns the command and the flags of a hook that is NVIDIA's.
func nvidiaHook(h device.Hook) (command string, flags map[string][]string, ok bool) {
	words := h.Args[min(1, len(h.Args)):]
	switch filepath.Base(h.Path) {
	case nvidiaProgram:
	case nvidiaToolkit:
		if len(words) == 0 || words[0] != "hook" {
			return "", nil, false
		}
		words = words[1:]
	default:
		return "", nil, false
	}
	if len(words) == 0 || !slices.Contains([]string{"createContainer", "createRuntime", "prestart"}, h.Stage) {
		return "", nil, false
	}
	flags = map[string][]string{}
	for i := 1; i < len(words); i++ {
		name, value, hasValue := strings.Cut(strings.TrimLeft(words[i], "-"), "=")
		if !hasValue && i+1 < len(words) && strings.HasPrefix(words[i], "-") {
			i++
			value = words[i]
		}
		flags[name] = append(flags[name], value)
	}
	return words[0], flags, true
}
