// SPDX-License-Identifier: Apache-2.0

package option

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// PinVariable holds "REFERENCE@DIGEST": what the submitting side resolved the
// image to. Steps that ask for the same reference use the same digest. Where the
// reference has a relative path, the whole reference with the absolute path
// stands in place of the digest.
const PinVariable = "BROLGA_PIN"

// JobImageVariable is for others to read: prologs and epilogs of the job find the
// image, by name and digest, in it, as SPANK_ and this name, and a job submit plugin
// of Slurm's finds it in the job's spank_job_env.
const JobImageVariable = "BROLGA_JOB_IMAGE"

// SettingsVariable holds what the submitting side read from an environment
// definition file, for the nodes, which do not read it again.
const SettingsVariable = "BROLGA_ENVIRONMENT_SETTINGS"

// adds tells of which options several values add up, those of a file before
// those of the command line.
func adds(name string) bool {
	return name == Mounts || name == Env || name == Annotation || name == Device
}

// Settings is the content of [SettingsVariable].
type Settings struct {
	// Environment is the value of the option the settings are for.
	Environment string
	Set         Set
}

// EnvironmentOf returns the value of --environment, or "".
func EnvironmentOf(given [][2]string, lookup func(string) (string, bool)) string {
	o, _ := find(Environment)
	name, _ := lookup(o.EnvName())
	for _, g := range given {
		if g[0] == Environment {
			name = g[1]
		}
	}
	return name
}

// readSettings returns what an environment definition file says.
func readSettings(name string, lookup func(string) (string, bool)) (Set, error) {
	text, ok := lookup(SettingsVariable)
	var settings Settings
	err := json.Unmarshal([]byte(text), &settings)
	if !ok || err != nil || settings.Environment != name {
		return nil, fault.WithHint(fmt.Errorf("--%s: what %s says has not come along with the step", Environment, name),
			"submit it again; if that does not help, tell the administrator that Brolga differs between nodes")
	}
	return settings.Set, nil
}

// JobVariables returns the names of all variables that decide about containers of
// the steps that a job starts: ours, and those in which sbatch leaves its options
// (slurm/src/common/plugstack.c).
func JobVariables() []string {
	names := []string{PinVariable, SettingsVariable}
	for _, o := range Table {
		names = append(names, o.jobVariables()...)
	}
	return names
}

// VariablesOf returns those of [JobVariables] that are one option's.
func VariablesOf(name string) []string {
	o, _ := find(name)
	return o.jobVariables()
}

func (o Option) jobVariables() []string {
	names := []string{"SLURM_SPANK__SLURM_SPANK_OPTION_brolga_" + strings.ReplaceAll(o.Name, "-", "_")}
	if o.Negates == "" {
		names = append(names, o.EnvName())
	}
	return names
}

// Set is what the user asked for. An option that was not given is absent.
type Set map[string]string

// Has tells whether the option was given.
func (s Set) Has(name string) bool { _, ok := s[name]; return ok }

// Flag returns the value of a flag, or fallback when neither the flag nor its
// opposite was given.
func (s Set) Flag(name string, fallback bool) bool {
	if v, ok := s[name]; ok {
		return v == "1"
	}
	return fallback
}

// Collect merges options from the command line, as name and value, with those
// from the environment, which lookup finds, and those of an environment
// definition file in between. The command line wins; of an option given twice the last value wins, because Slurm hands over options several
// times. Flags become "1" or "0" under the name of the positive one.
func Collect(given [][2]string, lookup func(string) (string, bool)) (Set, error) {
	set, errs := Set{}, []error{}
	for _, o := range Table {
		if v, ok := lookup(o.EnvName()); ok && o.Negates == "" {
			errs = append(errs, o.fromEnv(set, v))
		}
	}
	var file Set
	if name := EnvironmentOf(given, lookup); name != "" {
		var err error
		file, err = readSettings(name, lookup)
		errs = append(errs, err)
		maps.Copy(set, file)
	}
	seen := Set{}
	for _, g := range given {
		o, ok := find(g[0])
		if !ok {
			errs = append(errs, fmt.Errorf("internal error: unknown option --%s", g[0]))
			continue
		}
		errs = append(errs, o.fromCommandLine(set, seen, g[1]))
	}
	for name, value := range file {
		if adds(name) && set[name] != value {
			set[name] = value + "," + set[name]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if len(set[name]) > maxValue {
			errs = append(errs, fmt.Errorf("--%s=%s is %w", name, budget.Shorten(set[name]), budget.Large(maxValue)))
			delete(set, name)
		}
	}
	return set, errors.Join(errs...)
}

// maxValue limits the size in bytes of an option's value. Twice the longest argument that
// Linux lets a program have: values of a file and of the command line may add up.
const maxValue = 256 << 10

func find(name string) (Option, bool) {
	for _, o := range Table {
		if o.Name == name {
			return o, true
		}
	}
	return Option{}, false
}

// fromEnv records the value of the option's environment variable.
func (o Option) fromEnv(set Set, value string) error {
	if o.Arg != "" && !o.Optional {
		if value == "" {
			return fmt.Errorf("%s is empty: unset it or give it a value", o.EnvName())
		}
		set[o.Name] = value
		return nil
	}
	v, ok := flagValue(value)
	if !ok && (!o.Optional || value == "") {
		return fmt.Errorf("%s=%s: want 1 or 0", o.EnvName(), value)
	}
	set[o.Name] = v
	return nil
}

// flagValue returns "1" or "0" for the words that mean yes or no. Others it
// returns as they are.
func flagValue(text string) (value string, ok bool) {
	switch strings.ToLower(text) {
	case "1", "true", "yes", "y":
		return "1", true
	case "0", "false", "no", "n":
		return "0", true
	}
	return text, false
}

// fromCommandLine records an option; seen holds the flags given so far, because
// a flag and its opposite on one command line contradict each other.
func (o Option) fromCommandLine(set, seen Set, value string) error {
	if o.Arg != "" && !o.Optional {
		if value == "" {
			return fmt.Errorf("--%s needs a value: %s", o.Name, o.Arg)
		}
		set[o.Name] = value
		return nil
	}
	name := o.Name
	switch {
	case o.Negates != "":
		name, value = o.Negates, "0"
	case !o.Optional || value == "" || value == "(null)": // as Slurm passes no value
		value = "1"
	default:
		value, _ = flagValue(value)
	}
	if before, ok := seen[name]; ok && (before == "0") != (value == "0") {
		return fmt.Errorf("--%s contradicts --%s: give one of them", o.Name, opposite(o))
	}
	set[name], seen[name] = value, value
	return nil
}

// opposite returns the name of the flag that says the contrary of o.
func opposite(o Option) string {
	if o.Negates != "" {
		return o.Negates
	}
	for _, other := range Table {
		if other.Negates == o.Name {
			return other.Name
		}
	}
	return o.Name
}
