// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/slurm"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// input is a case.json: what the site, the user and Slurm say.
type input struct {
	// Config are lines of brolga.toml.
	Config []string
	// Options are those of the command line, each with its value.
	Options [][2]string
	Step    slurm.Step
}

func (in input) resolve(t *testing.T) (Request, error) {
	t.Helper()
	c, err := config.Parse("brolga.toml", []byte(strings.Join(in.Config, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	set, err := option.Collect(in.Options, in.Step.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	return Resolve(c, set, in.Step)
}

// TestResolve turns every testdata/<case>/case.json into a request and compares
// it with request.json beside it.
func TestResolve(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/case.json")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	for _, path := range cases {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var in input
			if err := json.Unmarshal(text, &in); err != nil {
				t.Fatal(err)
			}
			got, err := in.resolve(t)
			if err != nil {
				t.Fatal(err)
			}
			checkGolden(t, filepath.Join(dir, "request.json"), got)
			again, err := in.resolve(t)
			if a, b := encode(t, got), encode(t, again); err != nil || !bytes.Equal(a, b) {
				t.Errorf("Resolve is not pure: %s, then %s, %v", a, b, err)
			}
		})
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// checkGolden compares v, as indented JSON, with the file at path. With
// -update it writes the file instead; read the diff before committing it.
func checkGolden(t *testing.T, path string, v any) {
	t.Helper()
	got := encode(t, v)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -run %s -update rewrites it)\ngot:\n%s", path, t.Name(), got)
	}
}

func TestResolveErrors(t *testing.T) {
	mpi := []string{"[[mpi]]", "name = 'a'", "libraries = ['libmpi.so.12']", "[[mpi]]", "name = 'last'", "libraries = ['libmpi.so.12']"}
	sets := []string{"[[mount_set]]", "name = 'a'", "mounts = ['/a']", "[[mount_set]]", "name = 'last'"}
	image := [2]string{option.Image, "ubuntu"}
	for _, tt := range []struct {
		name string
		in   input
		err  string
	}{
		{name: "no image", in: input{Options: [][2]string{{option.Workdir, "/"}}}, err: "container options are given, but no image"},
		{name: "a name that is new without an image", in: input{Options: [][2]string{{option.Name, "x:create"}}}, err: "container options are given, but no image"},
		{name: "bad name", in: input{Options: [][2]string{image, {option.Name, "../x"}}}, err: `--container-name: "../x": want letters`},
		{name: "to save what is joined", in: input{Options: [][2]string{{option.Name, "5.0"}, {option.Save, "x"}}}, err: "--container-save: a container that the step only joins cannot be saved"},
		{name: "to save with --multi-prog", in: input{Options: [][2]string{image, {option.Save, "x"}}, Step: slurm.Step{MultiProg: true}}, err: "--container-save cannot be used with --multi-prog"},
		{name: "to save in a directory", in: input{Options: [][2]string{image, {option.Save, "x/"}}}, err: `--container-save: "x/" is a directory`},
		{name: "bad image", in: input{Options: [][2]string{{option.Image, "ubuntu::x"}}}, err: "--container-image: "},
		{name: "blocked registry", in: input{Config: []string{"[[registry]]", "name = 'docker.io'", "blocked = 'x'"}, Options: [][2]string{image}}, err: "--container-image: registry docker.io is blocked on this cluster"},
		{name: "workdir", in: input{Options: [][2]string{image, {option.Workdir, "work"}}}, err: `--container-workdir: "work" is not an absolute path`},
		{name: "mounts", in: input{Options: [][2]string{image, {option.Mounts, "a:/b"}}}, err: `--container-mounts: "a:/b": source "a" does not start`},
		{name: "mount at /", in: input{Options: [][2]string{image, {option.Mounts, "/a:/"}}}, err: "--container-mounts: destination / is taken"},
		{name: "mount at /proc", in: input{Options: [][2]string{image, {option.Mounts, "/a:/proc"}}}, err: "destination /proc is taken"},
		{name: "mount below /sys", in: input{Options: [][2]string{image, {option.Mounts, "/a:/sys/fs/cgroup"}}}, err: "destination /sys/fs/cgroup is taken"},
		{name: "mount at /dev", in: input{Options: [][2]string{image, {option.Mounts, "/a:/dev"}}}, err: "destination /dev is taken"},
		{name: "mount at a detour", in: input{Options: [][2]string{image, {option.Mounts, "/a://x/../proc/./1"}}}, err: "destination /proc/1 is taken"},
		{name: "site mounts", in: input{Config: []string{"container.mounts = ['x']"}, Options: [][2]string{image}}, err: "container.mounts of the site configuration: --container-mounts: \"x\""},
		{name: "site mount at /", in: input{Config: []string{"container.mounts = ['/x:/']"}, Options: [][2]string{image}}, err: "container.mounts of the site configuration: destination / is taken"},
		{name: "devices", in: input{Options: [][2]string{image, {option.Device, "gpu,/etc/x"}}}, err: "--container-device: \"gpu\": want VENDOR/CLASS=NAME, a path below /dev, or none\n--container-device: \"/etc/x\": want a path below /dev"},
		{name: "device at /proc", in: input{Options: [][2]string{image, {option.Device, "/dev/a:/proc/a"}}}, err: "--container-device: destination /proc/a is taken"},
		{name: "gpus", in: input{Options: [][2]string{image}, Step: slurm.Step{Tasks: 1, Env: []string{"SLURM_STEP_GPUS=x"}}}, err: `SLURM_STEP_GPUS="x": want numbers`},
		{name: "environment", in: input{Options: [][2]string{image, {option.Env, "9"}}}, err: `--container-env: "9" is not the name`},
		{name: "Slurm's environment", in: input{Options: [][2]string{image, {option.Env, "A=1,SLURM_PROCID=0,PMI_RANK=1"}}}, err: "--container-env: SLURM_PROCID belongs to Slurm and cannot be set\n--container-env: PMI_RANK belongs"},
		{name: "entrypoint with --multi-prog", in: input{Options: [][2]string{image, {option.Entrypoint, ""}}, Step: slurm.Step{MultiProg: true}}, err: "--container-entrypoint cannot be used with --multi-prog"},
		{name: "process namespace with --multi-prog", in: input{Options: [][2]string{image, {option.Init, ""}}, Step: slurm.Step{MultiProg: true}}, err: "--container-unshare=pid and --container-init cannot be used with --multi-prog"},
		{name: "namespaces", in: input{Options: [][2]string{image, {option.Unshare, "net,user"}, {option.Init, ""}}}, err: `--container-unshare: "user" is not one of net, ipc, uts, pid`},
		{name: "ssh without a network", in: input{Options: [][2]string{image, {option.SSH, ""}, {option.Unshare, "net"}, {option.RemapRoot, ""}}, Step: slurm.Step{UID: 5}}, err: "--container-ssh cannot be used with --container-unshare=net\n--container-ssh cannot be used with --container-remap-root"},
		{name: "no ssh", in: input{Config: []string{"ssh.enabled = false"}, Options: [][2]string{image, {option.SSH, ""}}}, err: "--container-ssh: this cluster does not allow SSH servers in containers"},
		{name: "ssh without a secret", in: input{Options: [][2]string{image, {option.SSH, ""}}, Step: slurm.Step{Node: "n1", NodeCount: 2, Env: []string{"SLURM_STEP_NODELIST=n[1-2]"}}}, err: "the secret of the step has not come along with it"},
		{name: "no mpi", in: input{Options: [][2]string{image, {option.MPI, ""}}}, err: "--container-mpi: this cluster offers no MPI of the host"},
		{name: "another mpi", in: input{Config: mpi, Options: [][2]string{image, {option.MPI, "b"}}}, err: `--container-mpi: "b" is not one of a, last`},
		{name: "mount of an mpi", in: input{Config: append(mpi, "mounts = ['tmpfs:/a']"), Options: [][2]string{image, {option.MPI, "last"}}}, err: `mpi last of the site configuration: mount "tmpfs:/a": want a path of the host`},
		{name: "mount of an mpi at /", in: input{Config: append(mpi, "mounts = ['/a:/']"), Options: [][2]string{image, {option.MPI, "last"}}}, err: "mpi last of the site configuration: destination / is taken"},
		{name: "no mount sets", in: input{Options: [][2]string{image, {option.MountSet, ""}}}, err: "--container-mount-set: this cluster offers no sets"},
		{name: "other mount sets", in: input{Config: append(sets, "mounts = ['/b']"), Options: [][2]string{image, {option.MountSet, "a,b,c"}}}, err: "--container-mount-set: \"b\" is not one of a, last\n--container-mount-set: \"c\" is not one of a, last"},
		{name: "mount of a set", in: input{Config: append(sets, "mounts = ['./b:/b']"), Options: [][2]string{image}}, err: `mount_set last of the site configuration: mount "./b:/b": want a path of the host`},
		{name: "mount of a set at /", in: input{Config: append(sets, "mounts = ['/a:/']"), Options: [][2]string{image}}, err: "mount_set last of the site configuration: destination / is taken"},
		{name: "pull", in: input{Options: [][2]string{image, {option.Pull, "sometimes"}}}, err: `--container-pull: "sometimes" is not one of missing, always, never`},
		{name: "root", in: input{Options: [][2]string{image}, Step: slurm.Step{UID: 0}}, err: "user root may not run containers on this cluster"},
		{
			name: "all mistakes", in: input{Options: [][2]string{{option.Workdir, "w"}, {option.Env, "="}, {option.Mounts, "/a:/"}}},
			err: "container options are given, but no image\n--container-mounts: destination / is taken: choose another\n--container-workdir: \"w\" is not an absolute path\n--container-env: \"\" is not",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name != "root" {
				tt.in.Step.UID = 1000
			}
			got, err := tt.in.resolve(t)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("Resolve = %+v, %v; want an error with %q", got, err, tt.err)
			}
		})
	}
}

func TestResolveHints(t *testing.T) {
	_, err := Resolve(config.Default(), option.Set{option.Writable: "1"}, slurm.Step{UID: 1000})
	if !errors.Is(err, ErrNoImage) || !strings.Contains(fault.Hint(err), "--container-image=IMAGE") {
		t.Errorf("Resolve = %v (hint %q); want ErrNoImage with a hint", err, fault.Hint(err))
	}
	_, err = Resolve(config.Default(), option.Set{option.Image: "a"}, slurm.Step{})
	if hint := fault.Hint(err); !strings.Contains(hint, "ordinary user") {
		t.Errorf("Resolve for root: hint %q; want one", hint)
	}
}

func TestPins(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const other = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
	for _, tt := range []struct {
		name, image, pin string
		want             string // digest
	}{
		{"of the same name", "ubuntu:24.04", "docker.io/library/ubuntu:24.04@" + digest, digest},
		{"another spelling", "docker://docker.io/library/ubuntu:24.04", "docker.io/library/ubuntu:24.04@" + digest, digest},
		{"of another tag", "ubuntu:22.04", "docker.io/library/ubuntu:24.04@" + digest, ""},
		{"of another image", "debian:24.04", "docker.io/library/ubuntu:24.04@" + digest, ""},
		{"against a digest", "ubuntu@" + other, "docker.io/library/ubuntu@" + digest, other},
		{"without digest", "ubuntu:24.04", "docker.io/library/ubuntu:24.04", ""},
		{"with an empty digest", "ubuntu:24.04", "docker.io/library/ubuntu:24.04@", ""},
		{"with a malformed digest", "ubuntu:24.04", "docker.io/library/ubuntu:24.04@sha256:x", ""},
		{"with two digests", "ubuntu:24.04", "docker.io/library/ubuntu:24.04@" + digest + "@" + other, ""},
		{"empty", "ubuntu:24.04", "", ""},
		{"of another file", "./x.sqsh", "./y.sqsh@/w/y.sqsh@" + digest, ""},
		{"of another kind", "./x.sqsh", "./x.sqsh@dir:/w", ""},
		{"to a relative path", "./x.sqsh", "./x.sqsh@./y.sqsh@" + digest, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input{
				Options: [][2]string{{option.Image, tt.image}},
				Step:    slurm.Step{UID: 1000, Env: []string{option.PinVariable + "=" + tt.pin}},
			}
			got, err := in.resolve(t)
			if err != nil || got.Image.Digest != tt.want {
				t.Errorf("Resolve = %s, %v; want the digest %q", got.Image, err, tt.want)
			}
		})
	}
	in := input{
		Options: [][2]string{{option.Image, "alice@r.example#a:1"}},
		Step:    slurm.Step{UID: 1000, Env: []string{option.PinVariable + "=r.example/a:1@" + digest}},
	}
	if got, err := in.resolve(t); err != nil || got.Image.Argument() != "alice@r.example#a:1@"+digest {
		t.Errorf("Resolve = %s, %v; want the user of the credentials kept", got.Image.Argument(), err)
	}
}

// TestPin checks that the nodes take from the variable what was put there.
func TestPin(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, tt := range []struct{ image, resolved string }{
		{"ubuntu:24.04", "docker.io/library/ubuntu:24.04@" + digest},
		{"oci-archive:/a/x.tar:v1", "oci-archive:/a/x.tar:v1@" + digest},
		{"oci-archive:x.tar:v1", "oci-archive:/w/x.tar:v1@" + digest},
		{"oci:dir@" + digest, "oci:/w/dir@" + digest},
		{"./x.sqsh", "/w/x.sqsh"},
		{"./x@y.sqsh", "/w/x@y.sqsh@" + digest},
		{"dir:root", "dir:/w/root"},
	} {
		t.Run(tt.image, func(t *testing.T) {
			in := input{Options: [][2]string{{option.Image, tt.image}}, Step: slurm.Step{UID: 1}}
			submitted, err := in.resolve(t)
			if err != nil {
				t.Fatal(err)
			}
			resolved, err := ref.Parse(tt.resolved)
			if err != nil {
				t.Fatal(err)
			}
			in.Step.Env = []string{option.PinVariable + "=" + submitted.Pin(resolved)}
			for range 2 { // a step of a job is submitted with the job's pin
				got, err := in.resolve(t)
				if err != nil || got.Image != resolved {
					t.Fatalf("with %s: Resolve = %s, %v; want %s", in.Step.Env[0], got.Image, err, resolved)
				}
				in.Step.Env = []string{option.PinVariable + "=" + got.Pin(got.Image)}
			}
		})
	}
}

func TestNeedsTask(t *testing.T) {
	for _, tt := range []struct {
		image, mounts string
		want          bool
	}{
		{"a", "/a:/b", false}, {"a", "/a,./b:/b", true}, {"a", ".:/b", true}, {"./a", "/a", true}, {"dir:/a", "/a", false},
	} {
		in := input{Options: [][2]string{{option.Image, tt.image}, {option.Mounts, tt.mounts}}, Step: slurm.Step{UID: 1}}
		got, err := in.resolve(t)
		if err != nil || got.NeedsTask() != tt.want {
			t.Errorf("NeedsTask of %s with %s = %v, %v; want %v", tt.image, tt.mounts, got.NeedsTask(), err, tt.want)
		}
	}
}

func TestXAuthority(t *testing.T) {
	for _, tt := range []struct{ display, file, want string }{
		{"n1:20.0", "/tmp/.Xauthority-a", "/tmp/.Xauthority-a"},
		{"n1:20.0", "/home/u/./.Xauthority", "/home/u/.Xauthority"},
		{"", "/tmp/.Xauthority-a", ""}, {"n1:20.0", "", ""}, {"n1:20.0", "relative", ""}, {"n1:20.0", "/proc/1/x", ""},
	} {
		in := input{Options: [][2]string{{option.Image, "a"}}, Step: slurm.Step{UID: 1, Env: []string{"DISPLAY=" + tt.display, "XAUTHORITY=" + tt.file}}}
		if got, err := in.resolve(t); err != nil || got.XAuthority != tt.want {
			t.Errorf("XAuthority of %q, %q = %q, %v; want %q", tt.display, tt.file, got.XAuthority, err, tt.want)
		}
	}
}

func TestResolveMPI(t *testing.T) {
	const stacks = "[[mpi]]\nname = 'a'\nlibraries = ['x']\n[[mpi]]\nname = 'b'\nlibraries = ['y']\n"
	for _, tt := range []struct {
		site, option, want string
		asked              bool
	}{
		{site: stacks},
		{site: stacks, option: "1", want: "a", asked: true},
		{site: stacks, option: "b", want: "b", asked: true},
		{site: stacks + "[container]\nmpi = 'b'", want: "b"},
		{site: stacks + "[container]\nmpi = 'b'", option: "1", want: "b", asked: true},
		{site: stacks + "[container]\nmpi = 'b'", option: "a", want: "a", asked: true},
		{site: stacks + "[container]\nmpi = 'b'", option: "0"},
		{option: "0"},
	} {
		c, err := config.Parse("brolga.toml", []byte(tt.site))
		if err != nil {
			t.Fatal(err)
		}
		set := option.Set{option.Image: "debian"}
		if tt.option != "" {
			set[option.MPI] = tt.option
		}
		r, err := Resolve(c, set, slurm.Step{UID: 1})
		got, asked := "", false
		if r.MPI != nil {
			got, asked = r.MPI.Name, r.MPI.Asked
		}
		if err != nil || got != tt.want || asked != tt.asked {
			t.Errorf("site %q, option %q: %q, asked %v, %v; want %q, %v", tt.site, tt.option, got, asked, err, tt.want, tt.asked)
		}
	}
}

func TestRequestIn(t *testing.T) {
	mount := func(source string) Mount { return Mount{Mount: option.Mount{Source: source, Target: "/t"}} }
	given := []Mount{mount("/a"), mount("."), mount("./b"), mount("../c")}
	saved := &Save{Path: "x"}
	r := Request{Filesystem: Filesystem{Mounts: given, Save: saved}}.In("/home/ada")
	var got []string
	for _, m := range r.Mounts {
		got = append(got, m.Source)
	}
	if want := []string{"/a", "/home/ada", "/home/ada/b", "/home/c"}; !slices.Equal(got, want) {
		t.Errorf("In: %q; want %q", got, want)
	}
	if r.Save.Path != "/home/ada/x" {
		t.Errorf("In: saved to %s", r.Save.Path)
	}
	if given[1].Source != "." || saved.Path != "x" {
		t.Error("In changes what others have")
	}
}

// TestGated checks what a node says that cannot read its configuration.
func TestGated(t *testing.T) {
	facts := []wire.Record{
		{Key: "job", Value: "5"}, {Key: "node", Value: "n2"}, {Key: "nodes", Value: "2"},
		{Key: "env", Value: "BROLGA_STEP_SECRET=" + strings.Repeat("07", 32)}, {Key: "env", Value: "SLURM_STEP_NODELIST=n[1-2]"},
	}
	sync := config.Default().Sync
	sync.Fanout = 3
	for _, tt := range []struct {
		name, text string
		facts      []wire.Record
		want       *config.Sync
	}{
		{"as srun says", sync.String(), facts, &sync},
		{"does not wait", "", facts, nil},
		{"malformed", "sync = {ports = '1-2'}", facts, nil},
		{"no secret", sync.String(), facts[:3], nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			step, _, err := slurm.FromRecords(append(slices.Clone(tt.facts), wire.Record{Key: "env", Value: "BROLGA_STEP_SYNC=" + tt.text}))
			if err != nil {
				t.Fatal(err)
			}
			r := Gated(step)
			if !reflect.DeepEqual(r.Sync, tt.want) || (tt.want != nil && (len(r.Peers) != 2 || r.Own != 1 || r.Secret.IsZero())) {
				t.Errorf("Gated = %+v, nodes %v; want sync %+v", r, r.Peers, tt.want)
			}
		})
	}
}

// TestShared checks what the nodes of a step that speak to each other know of it.
func TestShared(t *testing.T) {
	text := func(name string) []wire.Record { return []wire.Record{{Key: "env", Value: name}} }
	secret := text("BROLGA_STEP_SECRET=" + strings.Repeat("07", 32))
	list := text("SLURM_STEP_NODELIST=n[1-2]")
	facts := []wire.Record{{Key: "uid", Value: "1000"}, {Key: "node", Value: "n2"}, {Key: "nodes", Value: "2"}}
	for _, tt := range []struct {
		name    string
		options option.Set
		records []wire.Record
		peers   int
		err     string
	}{
		{"not wanted", option.Set{}, slices.Concat(facts, secret, list), 0, ""},
		{"two nodes", option.Set{option.Sync: "1"}, slices.Concat(facts, secret, list), 2, ""},
		{"where it is submitted", option.Set{option.Sync: "1"}, facts[:1], 0, ""},
		{"no secret", option.Set{option.Sync: "1"}, slices.Concat(facts, list), 0, "the secret of the step has not come along with it"},
		{"no nodes", option.Set{option.Sync: "1"}, slices.Concat(facts, secret), 0, `find the nodes of the step: node n2 is not one of the step's, which are "", as SLURM_STEP_NODELIST says`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			step, _, err := slurm.FromRecords(tt.records)
			if err != nil {
				t.Fatal(err)
			}
			tt.options[option.Image] = "ubuntu"
			r, err := Resolve(config.Default(), tt.options, step)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("Resolve = %v; want %s", err, tt.err)
				}
				return
			}
			if err != nil || len(r.Peers) != tt.peers || r.Secret.IsZero() != (tt.peers == 0) || (tt.peers > 0 && r.Own != 1) {
				t.Errorf("Resolve = %v, own %d, %v; want %d nodes", r.Peers, r.Own, err, tt.peers)
			}
			// A request that cannot be fulfilled is good for telling the others so.
			tt.options[option.Mounts] = "relative:relative"
			bad, err := Resolve(config.Default(), tt.options, step)
			if err == nil || len(bad.Peers) != tt.peers || (tt.peers > 0 && (bad.Sync == nil || bad.Secret.IsZero() || bad.Own != 1)) || bad.UID != 0 {
				t.Errorf("Resolve of a mistake = %+v, %v", bad, err)
			}
		})
	}
}
