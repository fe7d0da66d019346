// SPDX-License-Identifier: Apache-2.0

package edf

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/brolga-hpc/brolga/pkg/option"
)

// maxSettings limits what a variable has to carry to the nodes: the kernel takes
// 128 KiB, the shim's buffer half of that.
const maxSettings = 48 << 10

// Variable reads the file that an option or a variable names and returns what it
// says, also as the variable that tells it to others ([option.SettingsVariable]);
// both are empty if none is asked for. The directories are the site's; relative
// paths start in the working directory.
func Variable(given [][2]string, directories []string, getenv func(string) (string, bool)) (string, option.Set, error) {
	name := option.EnvironmentOf(given, getenv)
	if name == "" {
		return "", nil, nil
	}
	cwd, err := os.Getwd()
	if err != nil {
		return "", nil, fmt.Errorf("find the working directory: %w", err)
	}
	home, _ := getenv("HOME")
	set, err := Load(name, Search{
		Dirs:   Dirs(home, directories, getenv),
		Cwd:    cwd,
		Getenv: getenv,
	})
	if err != nil {
		return "", nil, err
	}
	text, err := json.Marshal(option.Settings{Environment: name, Set: set})
	if err != nil {
		return "", nil, err
	}
	if len(text) > maxSettings {
		return "", nil, fmt.Errorf("--%s: %s says more than %d KiB", option.Environment, name, maxSettings>>10)
	}
	return option.SettingsVariable + "=" + string(text), set, nil
}
