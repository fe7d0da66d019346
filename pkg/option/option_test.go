// SPDX-License-Identifier: Apache-2.0

package option

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

func TestTable(t *testing.T) {
	docs, err := os.ReadFile("../../docs/options.md")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, o := range Table {
		t.Run(o.Name, func(t *testing.T) {
			if !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(o.Name) || seen[o.Name] {
				t.Errorf("name %q is no option's or is there twice", o.Name)
			}
			seen[o.Name] = true
			if o.Usage == "" || strings.HasSuffix(o.Usage, ".") || strings.ContainsAny(o.Usage, "\n\"") {
				t.Errorf("usage %q: want one line without a full stop", o.Usage)
			}
			if o.Doc != "" && !strings.HasSuffix(o.Doc, ".") {
				t.Errorf("doc %q: want whole sentences", o.Doc)
			}
			if o.Doc == "" && o.Negates == "" {
				t.Error("nothing is said about it but one line")
			}
			if !strings.Contains(string(docs), "\n## `--"+o.Name) || !strings.Contains(string(readme), "| `--"+o.Name) {
				t.Error("is not in docs/options.md and README.md: run make generate")
			}
			if o.Negates == "" {
				return
			}
			other, ok := find(o.Negates)
			if !ok || other.Arg != "" && !other.Optional || other.Negates != "" || o.Arg != "" {
				t.Errorf("negates %q: want a flag that negates nothing", o.Negates)
			}
		})
	}
}

func TestCollect(t *testing.T) {
	type given = [][2]string
	for _, tt := range []struct {
		name  string
		given given
		env   map[string]string
		want  Set
		err   string
	}{
		{name: "nothing", want: Set{}},
		{name: "an option", given: given{{Image, "ubuntu"}}, want: Set{Image: "ubuntu"}},
		{name: "its variable", env: map[string]string{"BROLGA_CONTAINER_IMAGE": "ubuntu"}, want: Set{Image: "ubuntu"}},
		{
			name: "the command line wins", given: given{{Image, "a"}},
			env:  map[string]string{"BROLGA_CONTAINER_IMAGE": "b", "BROLGA_CONTAINER_WORKDIR": "/w"},
			want: Set{Image: "a", Workdir: "/w"},
		},
		{name: "the last value wins", given: given{{Image, "a"}, {Workdir, "/"}, {Image, "b"}}, want: Set{Image: "b", Workdir: "/"}},
		{name: "a flag", given: given{{Writable, ""}}, want: Set{Writable: "1"}},
		{name: "a flag with what Slurm passes", given: given{{Writable, "(null)"}}, want: Set{Writable: "1"}},
		{name: "a value that may be left out", given: given{{MPI, "cray"}}, want: Set{MPI: "cray"}},
		{name: "a value that is left out", given: given{{MPI, ""}}, want: Set{MPI: "1"}},
		{name: "a value that is left out as Slurm passes it", given: given{{MPI, "(null)"}}, want: Set{MPI: "1"}},
		{name: "a value that is no", given: given{{MPI, "no"}}, want: Set{MPI: "0"}},
		{name: "the opposite of an option with a value", given: given{{NoMPI, ""}}, env: map[string]string{"BROLGA_CONTAINER_MPI": "cray"}, want: Set{MPI: "0"}},
		{name: "a variable that may be a name", env: map[string]string{"BROLGA_CONTAINER_MPI": "cray"}, want: Set{MPI: "cray"}},
		{name: "a variable that may be yes", env: map[string]string{"BROLGA_CONTAINER_MPI": "yes"}, want: Set{MPI: "1"}},
		{name: "an option with a value against its opposite", given: given{{MPI, "cray"}, {NoMPI, ""}}, err: "--no-container-mpi contradicts --container-mpi: give one of them"},
		{name: "a variable without what may be a name", env: map[string]string{"BROLGA_CONTAINER_MPI": ""}, err: "BROLGA_CONTAINER_MPI=: want 1 or 0"},
		{name: "a flag twice", given: given{{Writable, ""}, {Writable, ""}}, want: Set{Writable: "1"}},
		{name: "a negating flag", given: given{{Readonly, ""}}, want: Set{Writable: "0"}},
		{name: "two negations", given: given{{Readonly, ""}, {NoMountHome, ""}}, want: Set{Writable: "0", MountHome: "0"}},
		{name: "a flag against its variable", given: given{{Readonly, ""}}, env: map[string]string{"BROLGA_CONTAINER_WRITABLE": "1"}, want: Set{Writable: "0"}},
		{name: "variable yes", env: map[string]string{"BROLGA_CONTAINER_MOUNT_HOME": "Yes"}, want: Set{MountHome: "1"}},
		{name: "variable true", env: map[string]string{"BROLGA_CONTAINER_MOUNT_HOME": "TRUE"}, want: Set{MountHome: "1"}},
		{name: "variable n", env: map[string]string{"BROLGA_CONTAINER_MOUNT_HOME": "n"}, want: Set{MountHome: "0"}},
		{name: "variable false", env: map[string]string{"BROLGA_CONTAINER_MOUNT_HOME": "false"}, want: Set{MountHome: "0"}},
		{name: "no variable for a negation", env: map[string]string{"BROLGA_CONTAINER_READONLY": "1", "": "1"}, want: Set{}},

		{
			name: "a file, between variable and command line", given: given{{Environment, "x"}, {Writable, ""}, {Mounts, "/c"}},
			env: map[string]string{
				"BROLGA_CONTAINER_IMAGE": "variable", "BROLGA_CONTAINER_MOUNTS": "/v", "BROLGA_CONTAINER_WORKDIR": "/v",
				SettingsVariable: `{"Environment": "x", "Set": {"container-image": "file", "container-writable": "0", "container-mounts": "/f"}}`,
			},
			want: Set{Environment: "x", Image: "file", Workdir: "/v", Writable: "1", Mounts: "/f,/c"},
		},
		{
			name: "a file that a variable names", env: map[string]string{
				"BROLGA_ENVIRONMENT": "x", SettingsVariable: `{"Environment": "x", "Set": {"container-env": "A=b"}}`,
			},
			want: Set{Environment: "x", Env: "A=b"},
		},
		{name: "settings of no file", env: map[string]string{SettingsVariable: `{"Environment": "x", "Set": {"container-image": "file"}}`}, want: Set{}},

		{name: "a file whose settings are lost", given: given{{Environment, "x"}}, err: "--environment: what x says has not come along with the step"},
		{name: "settings of another file", given: given{{Environment, "x"}}, env: map[string]string{SettingsVariable: `{"Environment": "y", "Set": {}}`}, err: "what x says has not come along"},
		{name: "settings that are none", given: given{{Environment, "x"}}, env: map[string]string{SettingsVariable: "?"}, err: "what x says has not come along"},
		{name: "contradiction", given: given{{Writable, ""}, {Readonly, ""}}, err: "--container-readonly contradicts --container-writable: give one of them"},
		{name: "contradiction reversed", given: given{{NoMountHome, ""}, {MountHome, ""}}, err: "--container-mount-home contradicts --no-container-mount-home"},
		{name: "empty value", given: given{{Image, ""}}, err: "--container-image needs a value: [REGISTRY/]NAME"},
		{name: "empty variable", env: map[string]string{"BROLGA_CONTAINER_IMAGE": ""}, err: "BROLGA_CONTAINER_IMAGE is empty"},
		{name: "neither yes nor no", env: map[string]string{"BROLGA_CONTAINER_WRITABLE": "maybe"}, err: "BROLGA_CONTAINER_WRITABLE=maybe: want 1 or 0"},
		{
			name: "a value that is too long", given: given{{Mounts, strings.Repeat("/a:/b,", maxValue/6+1)}},
			err: "--container-mounts=" + strings.Repeat("/a:/b,", 20)[:64] + "... is too large: the limit is 256 KiB",
		},
		{name: "unknown", given: given{{"container-nonsense", "x"}}, err: "internal error: unknown option --container-nonsense"},
		{
			name: "all mistakes", given: given{{Image, ""}, {Workdir, ""}}, env: map[string]string{"BROLGA_CONTAINER_WRITABLE": "2"},
			err: "BROLGA_CONTAINER_WRITABLE=2: want 1 or 0\n--container-image needs a value: [REGISTRY/]NAME[:TAG][@DIGEST]\n--container-workdir needs a value",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Collect(tt.given, func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok })
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("Collect = %v, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || !maps.Equal(got, tt.want) {
				t.Fatalf("Collect = %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestFlag(t *testing.T) {
	for _, tt := range []struct {
		set      Set
		fallback bool
		want     bool
	}{
		{Set{}, true, true}, {Set{}, false, false},
		{Set{Writable: "1"}, false, true}, {Set{Writable: "0"}, true, false},
	} {
		if got := tt.set.Flag(Writable, tt.fallback); got != tt.want {
			t.Errorf("%v.Flag(%v) = %v; want %v", tt.set, tt.fallback, got, tt.want)
		}
	}
}

func TestEnvName(t *testing.T) {
	for name, want := range map[string]string{Image: "BROLGA_CONTAINER_IMAGE", MountHome: "BROLGA_CONTAINER_MOUNT_HOME", NoMountHome: ""} {
		o, _ := find(name)
		if got := o.EnvName(); got != want {
			t.Errorf("EnvName of %s = %q; want %q", name, got, want)
		}
	}
}

func TestParseMounts(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []Mount
		err  string
	}{
		{in: "/a", want: []Mount{{Source: "/a", Target: "/a"}}},
		{in: "/a:/b", want: []Mount{{Source: "/a", Target: "/b"}}},
		{in: "/a:/b:ro", want: []Mount{{Source: "/a", Target: "/b", Flags: []string{"ro"}}}},
		{in: "/a:/b:rw+rbind+rprivate", want: []Mount{{Source: "/a", Target: "/b", Flags: []string{"rw", "rbind", "rprivate"}}}},
		{in: "/a:/b:nosuid+nodev+noexec", want: []Mount{{Source: "/a", Target: "/b", Flags: []string{"nosuid", "nodev", "noexec"}}}},
		{in: "/a:/b:ro+ro", want: []Mount{{Source: "/a", Target: "/b", Flags: []string{"ro", "ro"}}}},
		{in: "/a,/b:/c", want: []Mount{{Source: "/a", Target: "/a"}, {Source: "/b", Target: "/c"}}},
		{in: ".:/work", want: []Mount{{Source: ".", Target: "/work"}}},
		{in: "./data:/data", want: []Mount{{Source: "./data", Target: "/data"}}},
		{in: "../data:/data", want: []Mount{{Source: "../data", Target: "/data"}}},
		{in: "/with space:/b c", want: []Mount{{Source: "/with space", Target: "/b c"}}},
		{in: `/a\,b:/c`, want: []Mount{{Source: "/a,b", Target: "/c"}}},
		{in: `/a\:b`, want: []Mount{{Source: "/a:b", Target: "/a:b"}}},
		{in: `/a\\:/b`, want: []Mount{{Source: `/a\`, Target: "/b"}}},
		{in: `/a\n`, want: []Mount{{Source: `/a\n`, Target: `/a\n`}}},
		{in: `/a\`, want: []Mount{{Source: `/a\`, Target: `/a\`}}},
		{in: `/a\\\,b\:c:/d`, want: []Mount{{Source: `/a\,b:c`, Target: "/d"}}},

		{in: `"/a b,c:d":/e`, want: []Mount{{Source: "/a b,c:d", Target: "/e"}}},
		{in: `"/a,b","/c:d":"/e,f":ro,/g`, want: []Mount{{Source: "/a,b", Target: "/a,b"}, {Source: "/c:d", Target: "/e,f", Flags: []string{"ro"}}, {Source: "/g", Target: "/g"}}},
		{in: `"./a:b":/c`, want: []Mount{{Source: "./a:b", Target: "/c"}}},
		{in: `"/a\"b\\c\n\,":/d`, want: []Mount{{Source: `/a"b\c\n,`, Target: "/d"}}},
		{in: `/a"b,/c"d`, want: []Mount{{Source: `/a"b`, Target: `/a"b`}, {Source: `/c"d`, Target: `/c"d`}}},
		{in: `"/a,/b`, err: `"\"/a,/b": the closing double quote is missing`},
		{in: `/a:"`, err: "the closing double quote is missing"},
		{in: `"/a\"`, err: "the closing double quote is missing"},
		{in: `"/a"b:/c`, err: "text follows a closing double quote"},
		{in: `""`, err: "source is empty"},
		{in: `"a":/b,"/a":c`, err: "source \"a\" does not start with / or .\n--container-mounts: \"\\\"/a\\\":c\": destination"},

		{in: "tmpfs:/t", want: []Mount{{Source: "tmpfs", Target: "/t"}}},
		{in: "tmpfs:/t:size=1g+mode=0700+noexec", want: []Mount{{Source: "tmpfs", Target: "/t", Flags: []string{"size=1g", "mode=0700", "noexec"}}}},
		{in: "umount:/t", want: []Mount{{Source: "umount", Target: "/t"}}},
		{in: "./tmpfs:/t", want: []Mount{{Source: "./tmpfs", Target: "/t"}}},
		{in: "/a.sqsh:/b:sqsh", want: []Mount{{Source: "/a.sqsh", Target: "/b", Flags: []string{"sqsh"}}}},
		{in: "/a.sqsh:/b:sqsh+rw", err: "flag sqsh stands alone: such a mount is read-only"},
		{in: "tmpfs:/b:sqsh", err: `unknown flag "sqsh"`},
		{in: "tmpfs", err: `destination "tmpfs" is not an absolute path`},
		{in: "umount", err: `destination "umount" is not an absolute path`},
		{in: "tmpfs:/t:size=", err: `size "": want a size such as 2g or 25%`},
		{in: "tmpfs:/t:size=1g;x", err: `size "1g;x": want a size`},
		{in: "tmpfs:/t:size=1g,uid=0", err: `"uid=0": source "uid=0" does not start`},
		{in: "tmpfs:/t:size=1g+size=2g", err: "flags size=1g and size=2g contradict each other"},
		{in: "tmpfs:/t:size", err: `unknown flag "size"`},
		{in: "tmpfs:/t:uid=0", err: `unknown flag "uid=0"`},
		{in: "tmpfs:/t:mode=4755", err: `mode "4755": want an octal number such as 0700`},
		{in: "tmpfs:/t:mode=rwx", err: `mode "rwx": want an octal number`},
		{in: "tmpfs:/t:rslave", err: `unknown flag "rslave"`},
		{in: "umount:/t:ro", err: `unknown flag "ro"`},
		{in: "devpts:/t", err: `source "devpts" does not start with / or .`},
		{in: "/a:/b:size=1g", err: `unknown flag "size=1g"`},
		{in: "", err: `--container-mounts: "": source is empty`},
		{in: ":", err: "source is empty"},
		{in: ":/b", err: "source is empty"},
		{in: "/a,", err: `"": source is empty`},
		{in: "a:/b", err: `source "a" does not start with / or .`},
		{in: "~/a:/b", err: `source "~/a" does not start with / or .`},
		{in: "./a", err: `destination "./a" is not an absolute path`},
		{in: "/a:b", err: `destination "b" is not an absolute path`},
		{in: "/a:", err: `destination "" is not an absolute path`},
		{in: "/a:/b:", err: `unknown flag ""`},
		{in: "/a:/b:rx", err: `unknown flag "rx"`},
		{in: "/a:/b:RO", err: `unknown flag "RO"`},
		{in: "/a:/b:ro,nosuid", err: `"nosuid": source "nosuid" does not start`},
		{in: "/a:/b:suid", err: `unknown flag "suid"`},
		{in: "/a:/b:ro+rw", err: "flags ro and rw contradict each other"},
		{in: "/a:/b:bind", err: `unknown flag "bind"`},
		{in: "/a:/b:rslave+private", err: "flags rslave and private contradict each other"},
		{in: "/a:/b:ro:x", err: "want SRC[:DST[:FLAGS]]"},
		{in: "a,/b:c", err: "--container-mounts: \"a\": source \"a\" does not start with / or .\n--container-mounts: \"/b:c\": destination"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseMounts(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("ParseMounts(%q) = %+v, %v; want an error with %q", tt.in, got, err, tt.err)
				}
				return
			}
			if err != nil || !slices.EqualFunc(got, tt.want, equalMounts) {
				t.Fatalf("ParseMounts(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			}
		})
	}
}

// TestMountHints: what is meant by a source that is no path.
func TestMountHints(t *testing.T) {
	for in, want := range map[string]string{
		"data:/data":      "begins with ./",
		"~/data:/data":    "in double quotes",
		"$HOME/data:/d":   "in double quotes",
		"/a:/b:ro,noexec": "separated by +",
		"/a,x:/y:ro":      "begins with ./",
	} {
		if _, err := ParseMounts(in); !strings.Contains(fault.Hint(err), want) {
			t.Errorf("the hint for %q is %q; want one with %q", in, fault.Hint(err), want)
		}
	}
}

func equalMounts(a, b Mount) bool {
	return a.Source == b.Source && a.Target == b.Target && slices.Equal(a.Flags, b.Flags)
}

func TestParseName(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tt := range []struct {
		in, name, how string
		err           string
	}{
		{in: "x", name: "x", how: NameAuto},
		{in: "Train_2.b-1:auto", name: "Train_2.b-1", how: NameAuto},
		{in: "x:create", name: "x", how: NameCreate},
		{in: "x:exec", name: "x", how: NameExec},
		{in: "x:no_exec", name: "x", how: NameNoExec},
		{in: "12.0", name: "12.0", how: NameAuto},
		{in: "12.batch:exec", name: "12.batch", how: NameExec},
		{in: "1.x:create", name: "1.x", how: NameCreate}, // no step
		{in: long, name: long, how: NameAuto},

		{in: "", err: "--container-name: the name is empty"},
		{in: ":exec", err: "--container-name: the name is empty"},
		{in: "x:", err: `--container-name: "" is not one of auto, create, exec, no_exec`},
		{in: "x:y:exec", err: `--container-name: "y:exec" is not one of`},
		{in: "a/b", err: `--container-name: "a/b": want letters, digits, _, - and dots`},
		{in: "..", err: `--container-name: "..": want`},
		{in: "-x", err: `--container-name: "-x": want`},
		{in: "a\x00", err: "want letters"},
		{in: long + "a", err: `the name is longer than 64 characters`},
		{in: "12.0:create", err: "12.0 is a job step, whose container can only be joined: leave :create out"},
		{in: "12.0:no_exec", err: "leave :no_exec out"},
		{in: "/:x", err: "--container-name: \"x\" is not one of auto, create, exec, no_exec\n--container-name: \"/\": want"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			name, how, err := ParseName(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("ParseName = %v; want an error with %q", err, tt.err)
				}
				return
			}
			if name != tt.name || how != tt.how || err != nil {
				t.Errorf("ParseName = %q, %q, %v; want %q, %q", name, how, err, tt.name, tt.how)
			}
		})
	}
}

func TestParseSave(t *testing.T) {
	for _, tt := range []struct {
		in         string
		everywhere bool
		err        string
	}{
		{in: "x.sqsh"},
		{in: "/a/b%j-%s.sqsh"},
		{in: "x-%n", everywhere: true},
		{in: "%N/x", everywhere: true},
		{in: "100%%n"},
		{in: "a/", err: `--container-save: "a/" is a directory: want the name of a file`},
		{in: "a%", err: `--container-save: "a%": want %n, %N, %j, %s or %% for what begins with %`},
		{in: "a%x", err: `"a%x": want`},
	} {
		t.Run(tt.in, func(t *testing.T) {
			everywhere, err := ParseSave(tt.in)
			if everywhere != tt.everywhere || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("ParseSave = %t, %v; want %t and an error with %q", everywhere, err, tt.everywhere, tt.err)
			}
		})
	}
}

func TestParseNamespaces(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
		err  string
	}{
		{in: "net", want: []string{"net"}},
		{in: "pid,net,uts,ipc,net", want: []string{"net", "ipc", "uts", "pid"}},
		{in: "", err: `--container-unshare: "" is not one of net, ipc, uts, pid`},
		{in: "net,", err: `"" is not one of`},
		{in: "user", err: `"user" is not one of`},
		{in: "NET,mnt", err: "\"NET\" is not one of net, ipc, uts, pid\n--container-unshare: \"mnt\" is not"},
	} {
		got, err := ParseNamespaces(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("ParseNamespaces(%q) = %q, %v; want an error with %q", tt.in, got, err, tt.err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("ParseNamespaces(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestParseEnv(t *testing.T) {
	value := func(s string) *string { return &s }
	for _, tt := range []struct {
		in   string
		want []EnvEdit
		err  string
	}{
		{in: "A", want: []EnvEdit{{Name: "A"}}},
		{in: "A=", want: []EnvEdit{{Name: "A", Value: value("")}}},
		{in: "A=b=c", want: []EnvEdit{{Name: "A", Value: value("b=c")}}},
		{in: "A,B=c,_d9", want: []EnvEdit{{Name: "A"}, {Name: "B", Value: value("c")}, {Name: "_d9"}}},
		{in: "A= b ", want: []EnvEdit{{Name: "A", Value: value(" b ")}}},
		{in: `A=b\,c,D`, want: []EnvEdit{{Name: "A", Value: value("b,c")}, {Name: "D"}}},
		{in: `A=b\\,C`, want: []EnvEdit{{Name: "A", Value: value(`b\`)}, {Name: "C"}}},
		{in: `A=\n\t`, want: []EnvEdit{{Name: "A", Value: value(`\n\t`)}}},
		{in: "A=two\nlines", want: []EnvEdit{{Name: "A", Value: value("two\nlines")}}},
		{in: "A=1,A=2", want: []EnvEdit{{Name: "A", Value: value("1")}, {Name: "A", Value: value("2")}}},

		{in: "-A,B", want: []EnvEdit{{Name: "A", Remove: true}, {Name: "B"}}},
		{in: "-A=", err: `"-A" is not the name`},
		{in: "--A", err: `"--A" is not the name`},
		{in: "-", err: `"-" is not the name`},
		{in: "", err: `--container-env: "" is not the name of a variable`},
		{in: "A,", err: `"" is not the name`},
		{in: "=b", err: `"" is not the name`},
		{in: "9A", err: `"9A" is not the name`},
		{in: "A B=c", err: `"A B" is not the name`},
		{in: "A-B", err: `"A-B" is not the name`},
		{in: "ALL=1, B=2", err: `" B" is not the name`},
		{in: "9,8", err: "--container-env: \"9\" is not the name of a variable\n--container-env: \"8\""},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseEnv(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("ParseEnv(%q) = %v, %v; want an error with %q", tt.in, got, err, tt.err)
				}
				return
			}
			if err != nil || !slices.EqualFunc(got, tt.want, equalEdits) {
				t.Fatalf("ParseEnv(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			}
		})
	}
}

func equalEdits(a, b EnvEdit) bool {
	if a.Value == nil || b.Value == nil {
		return a.Name == b.Name && a.Value == b.Value && a.Remove == b.Remove
	}
	return a.Name == b.Name && *a.Value == *b.Value && a.Remove == b.Remove
}

func TestParseAnnotations(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want map[string]string
		err  string
	}{
		{in: "a=b", want: map[string]string{"a": "b"}},
		{in: `com.x/y=1=2,b,c=x\,y`, want: map[string]string{"com.x/y": "1=2", "b": "", "c": "x,y"}},
		{in: "a=1,a=2", want: map[string]string{"a": "2"}},
		{in: "", err: `--container-annotation: "": want KEY=VALUE`},
		{in: "a,", err: `"": want KEY=VALUE`},
		{in: "=b", err: `"=b": want KEY=VALUE`},
		{in: "a b=c", err: `"a b=c": want KEY=VALUE`},
	} {
		got, err := ParseAnnotations(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("ParseAnnotations(%q) = %q, %v; want an error with %q", tt.in, got, err, tt.err)
			}
			continue
		}
		if err != nil || !maps.Equal(got, tt.want) {
			t.Errorf("ParseAnnotations(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func FuzzParseMounts(f *testing.F) {
	for _, seed := range []string{"/a", "/a:/b:ro", "./a:/b,/c", `/a\,b:/c\:d`, `/a\\`, ":", ",", `\`, "/a:/b:ro+rw", `"/a,b:c":"/d":ro,/e`, `"/a\"b\\"`, `"`, `/a"b`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		mounts, err := ParseMounts(in)
		if err != nil {
			return
		}
		for _, m := range mounts {
			if m.Source == "" || !strings.HasPrefix(m.Target, "/") {
				t.Fatalf("ParseMounts(%q) = %+v", in, m)
			}
			again := m.String()
			if got, err := ParseMounts(again); err != nil || len(got) != 1 || !equalMounts(got[0], m) {
				t.Fatalf("ParseMounts(%q) = %+v, %v; want %+v", again, got, err, m)
			}
		}
	})
}

func FuzzParseEnv(f *testing.F) {
	for _, seed := range []string{"A", "A=b", `A=b\,c,D`, `A=\`, "=", ","} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		edits, err := ParseEnv(in)
		if err != nil {
			return
		}
		for _, e := range edits {
			again := e.Name
			if e.Remove {
				again = "-" + again
			}
			if e.Value != nil {
				again += "=" + Escape(*e.Value)
			}
			if got, err := ParseEnv(again); err != nil || len(got) != 1 || !equalEdits(got[0], e) {
				t.Fatalf("ParseEnv(%q) = %+v, %v; want %+v", again, got, err, e)
			}
		}
	})
}

// TestShort checks that the short names are names: of one option each.
func TestShort(t *testing.T) {
	if o, _ := find(NoMountHome); o.Short() != "no-mount-home" || o.Synopsis(o.Short()) != "--no-mount-home" {
		t.Errorf("Short of %s = %q", o.Name, o.Short())
	}
	of := map[string]string{}
	for _, o := range Table {
		for _, name := range []string{o.Name, o.Short()} {
			if other, taken := of[name]; taken && other != o.Name {
				t.Errorf("--%s and --%s are both written --%s", o.Name, other, name)
			}
			of[name] = o.Name
		}
	}
}
