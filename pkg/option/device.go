// SPDX-License-Identifier: Apache-2.0

package option

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/parser"
)

// Devices is what --container-device asks for.
type Devices struct {
	// Names are those of CDI devices, VENDOR/CLASS=NAME, each once.
	Names []string
	// Mounts show device files.
	Mounts []Mount
	// None leaves out what Slurm gave to the step.
	None bool
}

// noDevices is the entry that stands for [Devices.None].
const noDevices = "none"

// ParseDevices parses the value of --container-device. All faulty entries are
// reported.
func ParseDevices(text string) (Devices, error) {
	var all Devices
	var errs []error
	seen := map[string]bool{}
	for _, entry := range split(text, ',') {
		switch {
		case entry == noDevices:
			all.None = true
		case strings.HasPrefix(entry, "/"):
			m, err := parseDevicePath(entry)
			if err != nil {
				errs = append(errs, fmt.Errorf("--%s: %q: %w", Device, entry, err))
			}
			all.Mounts = append(all.Mounts, m)
		case !parser.IsQualifiedName(entry):
			errs = append(errs, fmt.Errorf("--%s: %q: want VENDOR/CLASS=NAME, a path below /dev, or %s", Device, entry, noDevices))
		case !seen[entry]:
			seen[entry] = true
			all.Names = append(all.Names, entry)
		}
	}
	return all, errors.Join(errs...)
}

// parseDevicePath parses "HOST[:CONTAINER[:PERMISSIONS]]" as podman's --device has
// it. What may be done is the host's to say, by the device's owner and mode.
func parseDevicePath(entry string) (Mount, error) {
	parts := split(entry, ':')
	m := Mount{Source: unescape(parts[0]), Flags: []string{"noexec"}}
	m.Target = m.Source
	if len(parts) > 1 {
		m.Target = unescape(parts[1])
	}
	switch {
	case len(parts) > 3 || len(parts) == 3 && strings.Trim(parts[2], "rwm") != "":
		return m, errors.New("want PATH[:DST[:rwm]]")
	case !strings.HasPrefix(filepath.Clean(m.Source), "/dev/"):
		return m, errors.New("want a path below /dev")
	case !strings.HasPrefix(m.Target, "/"):
		return m, fmt.Errorf("destination %q is not an absolute path", m.Target)
	}
	return m, nil
}
