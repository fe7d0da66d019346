// SPDX-License-Identifier: Apache-2.0

// Command generate writes what is made from the option table: the C table of
// the shim, docs/options.md, and the table in README.md. "make generate" calls
// it with the root of the repository.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/option"
)

func main() {
	root := os.Args[1]
	for _, err := range []error{
		os.WriteFile(filepath.Join(root, "spank/options.inc"), []byte(cTable()), 0o644),
		os.WriteFile(filepath.Join(root, "docs/options.md"), []byte(page()), 0o644),
		replace(filepath.Join(root, "README.md"), table()),
	} {
		if err != nil {
			fmt.Fprintln(os.Stderr, "generate:", err)
			os.Exit(1)
		}
	}
}

const notice = `generated from pkg/option/option.go by "make generate"; do not edit`

func cTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "/* SPDX-License-Identifier: Apache-2.0 */\n/* %s */\n", notice)
	for _, o := range option.Table {
		fmt.Fprintf(&b, "{ %s, %s, %d, %s, %s },\n", quote(o.Name), orNull(o.Arg), hasArg(o), quote(o.Usage), orNull(asks(o)))
	}
	return b.String()
}

// hasArg is what getopt_long(3) calls has_arg.
func hasArg(o option.Option) int {
	switch {
	case o.Optional:
		return 2
	case o.Arg != "":
		return 1
	}
	return 0
}

// asks returns the variable that asks for a container by itself. The others are
// preferences, which a user may set for good without wanting a container each
// time.
func asks(o option.Option) string {
	if o.Name != option.Image && o.Name != option.Environment {
		return ""
	}
	return o.EnvName()
}

func orNull(s string) string {
	if s == "" {
		return "NULL"
	}
	return quote(s)
}

// quote makes a C string; the table has plain ASCII only.
func quote(s string) string { return strconv.Quote(s) }

func table() string {
	var b strings.Builder
	b.WriteString("| option | meaning |\n|---|---|\n")
	for _, o := range option.Table {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ReplaceAll(o.Synopsis(o.Name), "|", `\|`), o.Usage)
	}
	return b.String()
}

func page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- SPDX-License-Identifier: Apache-2.0 -->\n<!-- %s -->\n\n# Options\n\n", notice)
	b.WriteString("All options are options of `srun`, `sbatch` and `salloc`. Each can be set by its variable as well; " +
		"the command line wins. Of an option given twice the last counts. Only the variables of the image and of the environment " +
		"definition file ask for a container; the others are preferences for steps that have one.\n\n" +
		"Where an option has an opposite, one of the two holds without either, as the site has chosen. If it has chosen nothing, " +
		"containers can be written to and show the home directory, no entrypoint is run, and you are yourself.\n\n" +
		"`brolga run` has them, too, under these names and without `container-`: `--mounts` is `--container-mounts` there ([run.md](run.md)).\n")
	for _, o := range option.Table {
		fmt.Fprintf(&b, "\n## `%s`\n\n%s.\n", o.Synopsis(o.Name), strings.ToUpper(o.Usage[:1])+o.Usage[1:])
		if o.Doc != "" {
			fmt.Fprintf(&b, "\n%s\n", o.Doc)
		}
		switch {
		case o.Negates != "":
			for _, other := range option.Table {
				if other.Name == o.Negates {
					fmt.Fprintf(&b, "\nVariable: `%s=0`\n", other.EnvName())
				}
			}
		case o.Arg == "":
			fmt.Fprintf(&b, "\nVariable: `%s=1`\n", o.EnvName())
		case o.Optional:
			fmt.Fprintf(&b, "\nVariable: `%s=1` or `=%s`\n", o.EnvName(), o.Arg)
		default:
			fmt.Fprintf(&b, "\nVariable: `%s`\n", o.EnvName())
		}
	}
	return b.String()
}

const begin, end = "<!-- options: begin -->\n", "<!-- options: end -->\n"

// replace puts text between the two marks of the file.
func replace(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), begin)
	if !ok {
		return fmt.Errorf("%s: no line %q", path, strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return fmt.Errorf("%s: no line %q", path, strings.TrimSpace(end))
	}
	return os.WriteFile(path, []byte(before+begin+text+end+after), 0o644)
}
