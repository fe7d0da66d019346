// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

const example = "../../slurm-config/brolga.toml"

// TestExampleIsDefault keeps the commented example true: it has every key, with
// its default, and each after a comment.
func TestExampleIsDefault(t *testing.T) {
	var c Config // not the defaults: a key that is missing shows
	md, err := toml.DecodeFile(example, &c)
	if err != nil {
		t.Fatal(err)
	}
	if len(md.Undecoded()) > 0 {
		t.Errorf("unknown keys %v", md.Undecoded())
	}
	if want := Default(); !reflect.DeepEqual(c, want) {
		t.Errorf("example = %+v\nDefault = %+v", c, want)
	}
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	previous := ""
	for line := range strings.Lines(string(text)) {
		if key, _, ok := strings.Cut(line, " = "); ok && !strings.HasPrefix(line, "#") && !strings.HasPrefix(previous, "# ") {
			t.Errorf("no comment above %s", key)
		}
		previous = line
	}
}

func TestDefaultIsValid(t *testing.T) {
	if err := Default().Check(); err != nil {
		t.Errorf("Check of the defaults = %v", err)
	}
}

func TestLoad(t *testing.T) {
	missing := &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}
	closed := &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}
	changed := Default()
	changed.StoreOwner = "images"
	for _, tt := range []struct {
		name, named string
		text        string
		readErr     error
		asked, path string
		want        Config
		err         string
	}{
		{name: "named", named: "/a.toml", text: "store_owner = 'images'", asked: "/a.toml", path: "/a.toml", want: changed},
		{name: "by default", text: "store_owner = 'images'", asked: DefaultPath, path: DefaultPath, want: changed},
		{name: "none", readErr: missing, asked: DefaultPath, want: Default()},

		{name: "named and missing", named: "/a.toml", readErr: missing, asked: "/a.toml", err: "read site configuration: open x: file does not exist"},
		{name: "unreadable", readErr: closed, asked: DefaultPath, err: "read site configuration: open x: permission denied"},
		{name: "wrong", named: "/a.toml", text: "x = 1", asked: "/a.toml", err: "read site configuration /a.toml: unknown key x in /a.toml:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := ""
			got, path, err := Load(tt.named, func(path string) ([]byte, error) {
				asked = path
				return []byte(tt.text), tt.readErr
			})
			if asked != tt.asked {
				t.Errorf("Load reads %q; want %q", asked, tt.asked)
			}
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("Load = %v; want %q", err, tt.err)
				}
				return
			}
			if err != nil || path != tt.path || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Load = %+v, %q, %v; want %+v, %q", got, path, err, tt.want, tt.path)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in     string
		change func(*Config)
		err    string
	}{
		{in: "", change: func(*Config) {}},
		{in: "# only a comment", change: func(*Config) {}},
		{in: `store_owner = "images"`, change: func(c *Config) { c.StoreOwner = "images" }},
		{in: "store = ['/a', '/b']", change: func(c *Config) { c.Store = Dirs{"/a", "/b"} }},
		{in: "store_max_size = '2T'", change: func(c *Config) { c.StoreMaxSize = Portion{Size: 2 << 40} }},
		{in: "store_max_size = '0'", change: func(c *Config) { c.StoreMaxSize = Portion{} }},
		{in: "store_user_share = '7%'", change: func(c *Config) { c.StoreUserShare = Portion{Percent: 7} }},
		{in: "store_copy_size = '1000'", change: func(c *Config) { c.StoreCopySize = 1000 }},
		{in: `cache = "/scratch/{user}/brolga"`, change: func(c *Config) { c.Cache = "/scratch/{user}/brolga" }},
		{in: `cache = "/scratch/{uid}"`, change: func(c *Config) { c.Cache = "/scratch/{uid}" }},
		{in: `pull_timeout = "90s"`, change: func(c *Config) { c.PullTimeout = Duration(90 * time.Second) }},
		{in: "[[registry]]\nname = 'r:5000'\ninsecure = true", change: func(c *Config) {
			c.Registries = Registries{{Name: "r:5000", Insecure: true}}
		}},
		{in: "[[registry]]\nname = 'a.example'\nmirrors = ['m.example/a']\nca = '/a.pem'\nparallel = 2\n[[registry]]\nname = 'b.example'\nblocked = 'no'", change: func(c *Config) {
			c.Registries = Registries{{Name: "a.example", Mirrors: []string{"m.example/a"}, CA: "/a.pem", Parallel: 2}, {Name: "b.example", Blocked: "no"}}
		}},
		{in: "[container]\nmpi = 'a'\n[[mpi]]\nname = 'a'\nlibraries = ['libmpi.so.12']\nmounts = ['/opt/a']", change: func(c *Config) {
			c.Container.MPI, c.MPI = "a", []MPI{{Name: "a", Libraries: []string{"libmpi.so.12"}, Mounts: []string{"/opt/a"}}}
		}},
		{in: "container.glibc = true\n[[mount_set]]\nname = 'a'\nuse = 'image'\nannotation = 'com.a=true'\nlibraries = ['liba.so.1']", change: func(c *Config) {
			c.Container.Glibc, c.MountSets = true, []MountSet{{Name: "a", Use: "image", Annotation: "com.a=true", Libraries: []string{"liba.so.1"}}}
		}},
		{in: "[sync]\nports = '7000-7001'\nfanout = 2\ntimeout = '90s'\ninterface = 'hsn0'\naddress = '{node}-hsn'", change: func(c *Config) {
			c.Sync = Sync{Ports: PortRange{7000, 7001}, Fanout: 2, Timeout: Duration(90 * time.Second), Interface: "hsn0", Address: "{node}-hsn"}
		}},
		{in: "[convert]\nmemory = '3g'\nsquashfs = '5m'", change: func(c *Config) { c.Convert.Memory, c.Convert.Squashfs = 3<<30, 5<<20 }},
		{in: "[container]\nworkdir = 'image'", change: func(c *Config) { c.Container.Workdir = "image" }},
		{in: "[container]\ntmpfs_size = '512M'", change: func(c *Config) { c.Container.TmpfsSize = "512M" }},
		{in: "container.mounts = ['/scratch', '/a:/b:ro']", change: func(c *Config) { c.Container.Mounts = []string{"/scratch", "/a:/b:ro"} }},
		{in: "[container]\ndevices = []", change: func(c *Config) { c.Container.Devices = []string{} }},

		{in: "store = ", err: "brolga.toml:1: "},
		{in: "\n\nstore = '/a'\nstore = '/b'", err: "brolga.toml:4: "},
		{in: "\n[container]\nwritable = 1", err: `line 3 (last key "container.writable"): incompatible types`},
		{in: "store = ['/a', 1]", err: "1: want a directory or a list of them"},
		{in: "store_max_size = '1gg'", err: `"1gg" is not a size such as 20g`},
		{in: "store_user_share = '0%'", err: `"0%" is not a percentage from 1% to 100%`},
		{in: "store_user_share = '101%'", err: `"101%" is not a percentage from 1% to 100%`},
		{in: "convert.per_node = 0", err: "convert.per_node: want more than zero"},
		{in: "convert.per_user = -1", err: "convert.per_user: want more than zero"},
		{in: "store_max_size = '-1'", err: `"-1" is not a size such as 20g`},
		{in: "store_max_size = '9999999t'", err: `"9999999t" is not a size such as 20g`},
		{in: "pull_timeout = 'soon'", err: `"soon" is not a time span such as 10m`},
		{in: "\nstroe = '/a'", err: "unknown key stroe in brolga.toml:2"},
		{in: "[container]\n\n  alow_root = false", err: "unknown key container.alow_root in brolga.toml:3"},
		{in: "[contianer]\nwritable = true", err: "unknown key contianer in brolga.toml:1"},
		{in: "[[registry]]\nname = 'r'\n\n[[registry]]\nname = 's.example'\nmirror = []", err: "unknown key registry.mirror in brolga.toml:6"},
		{in: "a=1\nb=2", err: "unknown key a in brolga.toml:1\nunknown key b in brolga.toml:2"},
		{in: "a = 1\nstore = 'x'", err: "unknown key a in brolga.toml:1\nstore = \"x\": want an absolute path"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := Parse("brolga.toml", []byte(tt.in))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("Parse = %+v, %v; want an error with %q", got, err, tt.err)
				}
				if !strings.HasPrefix(err.Error(), "read site configuration brolga.toml") {
					t.Errorf("Parse = %v; want an error that begins with the file", err)
				}
				return
			}
			want := Default()
			tt.change(&want)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("Parse = %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		err    string // exact; empty means success
	}{
		{"percentage", func(c *Config) { c.Container.TmpfsSize = "100%" }, ""},
		{"bytes", func(c *Config) { c.Container.TmpfsSize = "1048576" }, ""},
		{"device", func(c *Config) { c.Container.Devices = []string{"/dev/nvidia[0-9]*"} }, ""},

		{"relative store", func(c *Config) { c.Store = Dirs{"var"} }, `store = "var": want an absolute path without . and ..`},
		{"store that climbs", func(c *Config) { c.Store = Dirs{"/b", "/a/../b"} }, `store = "/a/../b": want an absolute path without . and ..`},
		{"no store", func(c *Config) { c.Store = Dirs{} }, "store = []: want a directory"},
		{"store twice", func(c *Config) { c.Store = Dirs{"/a", "/b", "/a"} }, `store: "/a" is named twice`},
		{"copy onto the store", func(c *Config) { c.StoreCopyTo = "/var/lib/brolga" }, `store: "/var/lib/brolga" is named twice`},
		{"relative copy", func(c *Config) { c.StoreCopyTo = "x" }, `store_copy_to = "x": want an absolute path without . and ..`},
		{"store_keep", func(c *Config) { c.StoreKeep = -1 }, "store_keep: want zero or more"},
		{"no run_dir", func(c *Config) { c.RunDir = "" }, `run_dir = "": want an absolute path without . and ..`},
		{"client with a slash", func(c *Config) { c.Client = "/bin/brolga/" }, `client = "/bin/brolga/": want an absolute path without . and ..`},
		{"relative tar2sqfs", func(c *Config) { c.Tar2sqfs = "./t" }, `tar2sqfs = "./t": want an absolute path without . and ..`},
		{"shared cache", func(c *Config) { c.Cache = "/scratch/brolga" }, `cache = "/scratch/brolga": users would share it; put {home}, {user} or {uid} in it`},
		{"relative cache", func(c *Config) { c.Cache = "{user}/x" }, `cache = "{user}/x": want an absolute path with {home}, {user} or {uid}`},
		{"cache with another word", func(c *Config) { c.Cache = "/{user}/{job}" }, `cache = "/{user}/{job}": want an absolute path with {home}, {user} or {uid}`},
		{"store_owner root", func(c *Config) { c.StoreOwner = "root" }, `store_owner = "root": want a user without privilege`},
		{"no store_owner", func(c *Config) { c.StoreOwner = "" }, `store_owner = "": want a user without privilege`},
		{"trusted_squashfs", func(c *Config) { c.TrustedSquashfs = []string{"/a", "b"} }, `trusted_squashfs: "b": want an absolute path`},
		{"user_squashfs", func(c *Config) { c.UserSquashfs = "loop" }, `user_squashfs = "loop": want fuse, convert, kernel or deny`},
		{"relative squashfuse", func(c *Config) { c.Squashfuse = "squashfuse" }, `squashfuse = "squashfuse": want an absolute path without . and ..`},
		{"sandbox mode", func(c *Config) { c.Sandbox.Mode = "on" }, `sandbox.mode = "on": want auto, required or off`},
		{"sandbox path", func(c *Config) { c.Sandbox.Read = []string{"opt"} }, `sandbox.read: "opt": want an absolute path without . and ..`},
		{"apparmor_profile", func(c *Config) { c.Container.AppArmorProfile = "a b" }, `container.apparmor_profile = "a b": want at most 1024 printable characters without blanks`},
		{"selinux_label", func(c *Config) { c.Container.SELinuxLabel = "a\n" }, `container.selinux_label = "a\n": want at most 1024 printable characters without blanks`},
		{"relative audit_log", func(c *Config) { c.AuditLog = "log" }, `audit_log = "log": want an absolute path without . and ..`},
		{"workdir", func(c *Config) { c.Container.Workdir = "/work" }, `container.workdir = "/work": want job or image`},
		{"tmpfs_size zero", func(c *Config) { c.Container.TmpfsSize = "0" }, `container.tmpfs_size = "0": want a size such as 2g or 25%`},
		{"tmpfs_size of two units", func(c *Config) { c.Container.TmpfsSize = "1gg" }, `container.tmpfs_size = "1gg": want a size such as 2g or 25%`},
		{"tmpfs_size without number", func(c *Config) { c.Container.TmpfsSize = "%" }, `container.tmpfs_size = "%": want a size such as 2g or 25%`},
		{"tmpfs_size with options", func(c *Config) { c.Container.TmpfsSize = "1g,mode=7777" }, `container.tmpfs_size = "1g,mode=7777": want a size such as 2g or 25%`},
		{"pull_timeout", func(c *Config) { c.PullTimeout = 0 }, "pull_timeout: want more than zero"},
		{"convert.timeout", func(c *Config) { c.Convert.Timeout = 0 }, "convert.timeout: want more than zero"},
		{"convert.memory", func(c *Config) { c.Convert.Memory = 512 << 20 }, `convert.memory = "512m": want 1g or more`},
		{"convert.files", func(c *Config) { c.Convert.Files = 0 }, "convert.files: want more than zero"},
		{"convert.unpacked", func(c *Config) { c.Convert.Unpacked = 0 }, "convert.unpacked: want more than zero"},
		{"convert.squashfs", func(c *Config) { c.Convert.Squashfs = 0 }, "convert.squashfs: want more than zero"},
		{"device elsewhere", func(c *Config) { c.Container.Devices = []string{"/etc/*"} }, `container.devices: "/etc/*": want a pattern below /dev`},
		{"device that climbs", func(c *Config) { c.Container.Devices = []string{"/dev/../etc/*"} }, `container.devices: "/dev/../etc/*": want a pattern below /dev`},
		{"all devices", func(c *Config) { c.Container.Devices = []string{"/dev"} }, `container.devices: "/dev": want a pattern below /dev`},
		{"cdi in a relative directory", func(c *Config) { c.CDI.Directories = []string{"cdi"} }, `cdi.directories: "cdi": want an absolute path`},
		{"gpus of no kind", func(c *Config) { c.GPU.Kinds = []string{"gpu", "a/b=c", "a.b/c"} }, "gpu.kinds: \"gpu\": want VENDOR/CLASS\ngpu.kinds: \"a/b=c\": want VENDOR/CLASS"},
		{"part of a driver", func(c *Config) { c.GPU.Capabilities = []string{"all", "cuda"} }, `gpu.capabilities: "cuda" is not one of compute, graphics, ngx, utility, video, compat32, display, all`},
		{"malformed device", func(c *Config) { c.Container.Devices = []string{"/dev/["} }, `container.devices: "/dev/[": want a pattern below /dev`},
		{"named.scope", func(c *Config) { c.Named.Scope = "node" }, `named.scope = "node": want job or user`},
		{"named.directory", func(c *Config) { c.Named.Directory = "x" }, `named.directory = "x": want an absolute path without . and ..`},
		{"named.mke2fs", func(c *Config) { c.Named.Mke2fs = "mke2fs" }, `named.mke2fs = "mke2fs": want an absolute path without . and ..`},
		{"named.squeue", func(c *Config) { c.Named.Squeue = "" }, `named.squeue = "": want an absolute path without . and ..`},
		{"named.size", func(c *Config) { c.Named.Size = 1 << 20 }, `named.size = "1m": want 16m or more`},
		{"named.user_share", func(c *Config) { c.Named.UserShare = 0 }, "named.user_share = 0: want a percentage from 1 to 100"},
		{"named.user_share", func(c *Config) { c.Named.UserShare = 101 }, "named.user_share = 101: want a percentage from 1 to 100"},
		{"named.count", func(c *Config) { c.Named.Count = 0 }, "named.count: want more than zero"},
		{"named.unused", func(c *Config) { c.Named.Unused = 0 }, "named.unused: want more than zero"},
		{"sync.ports", func(c *Config) { c.Sync.Ports = PortRange{1023, 7000} }, `sync.ports = "1023-7000": want a range of ports from 1024 on, the lower one first`},
		{"sync.ports the wrong way", func(c *Config) { c.Sync.Ports = PortRange{7001, 7000} }, `sync.ports = "7001-7000": want a range of ports from 1024 on, the lower one first`},
		{"sync.fanout", func(c *Config) { c.Sync.Fanout = 1 }, "sync.fanout = 1: want 2 to 256"},
		{"sync.fanout too large", func(c *Config) { c.Sync.Fanout = 257 }, "sync.fanout = 257: want 2 to 256"},
		{"sync.timeout", func(c *Config) { c.Sync.Timeout = 0 }, "sync.timeout: want more than nothing"},
		{"sync.address", func(c *Config) { c.Sync.Address = "n1" }, `sync.address = "n1": all nodes would have one address; put {address} or {node} in it`},
		{"sync.interface", func(c *Config) { c.Sync.Interface = "a b" }, `sync.interface = "a b": want the name of a network interface, or nothing for all`},
		{"hooks", func(c *Config) {
			c.Hooks = Hooks{Directories: []string{"/a", "/b"}, Timeout: 1, Labels: []string{"com.a.*"}}
		}, ""},
		{"no hooks", func(c *Config) { c.Hooks = Hooks{Timeout: 1} }, ""},
		{"relative hooks", func(c *Config) { c.Hooks.Directories = []string{"hooks.d"} }, `hooks.directories: "hooks.d": want an absolute path`},
		{"low ports", func(c *Config) { c.SSH.Ports = PortRange{22, 2000} }, `ssh.ports = "22-2000": want a range of ports from 1024 on, the lower one first`},
		{"ports the wrong way", func(c *Config) { c.SSH.Ports = PortRange{3000, 2000} }, `ssh.ports = "3000-2000": want a range of ports from 1024 on, the lower one first`},
		{"no connections", func(c *Config) { c.SSH.Connections = 0 }, "ssh.connections: want more than zero"},
		{"no sessions", func(c *Config) { c.SSH.Sessions = -1 }, "ssh.sessions: want more than zero"},
		{"no time to log in", func(c *Config) { c.SSH.LoginTime = 0 }, "ssh.login_time: want more than zero"},
		{"relative timestamps", func(c *Config) { c.Hooks.Timestamps = "times.log" }, `hooks.timestamps = "times.log": want an absolute path without . and ..`},
		{"hooks without time", func(c *Config) { c.Hooks.Timeout = 0 }, "hooks.timeout: want more than zero"},
		{"malformed label", func(c *Config) { c.Hooks.Labels = []string{"a["} }, `hooks.labels: "a[": want a name, in which * stands for any characters but /`},
		{"mpi", func(c *Config) {
			c.MPI = []MPI{{Name: "cray-8.1", Libraries: []string{"libmpi.so.12", "/opt/a/libmpifort.so.12"}, Check: "full", Env: []string{"A=", "B=c=d"}, Devices: []string{"/dev/cxi*"}}}
			c.Container.MPI = "cray-8.1"
		}, ""},
		{"mpi without anything", func(c *Config) { c.MPI = []MPI{{}} }, "mpi.name = \"\": want a name of letters, digits and ._-, not a word for yes or no\nmpi : libraries: want at least one"},
		{"mpi called yes", func(c *Config) { c.MPI = []MPI{{Name: "Yes", Libraries: []string{"a"}}} }, `mpi.name = "Yes": want a name of letters, digits and ._-, not a word for yes or no`},
		{"mpi called 1", func(c *Config) { c.MPI = []MPI{{Name: "1", Libraries: []string{"a"}}} }, `mpi.name = "1": want a name of letters, digits and ._-, not a word for yes or no`},
		{"mpi twice", func(c *Config) {
			c.MPI = []MPI{{Name: "a", Libraries: []string{"a"}}, {Name: "a", Libraries: []string{"b"}}}
		}, `mpi.name = "a": is there twice`},
		{"mpi with a relative path", func(c *Config) { c.MPI = []MPI{{Name: "a", Libraries: []string{"lib/a.so"}}} }, `mpi a: "lib/a.so": want an absolute path without . and .., or a name such as libmpi.so.12`},
		{"mpi with a path that climbs", func(c *Config) {
			c.MPI = []MPI{{Name: "a", Libraries: []string{"a"}, Dependencies: []string{"/a/../b"}}}
		}, `mpi a: "/a/../b": want an absolute path without . and .., or a name such as libmpi.so.12`},
		{"mpi with another check", func(c *Config) { c.MPI = []MPI{{Name: "a", Libraries: []string{"a"}, Check: "minor"}} }, `mpi a: check = "minor": want major, full, strict`},
		{"mpi with another device", func(c *Config) { c.MPI = []MPI{{Name: "a", Libraries: []string{"a"}, Devices: []string{"/etc/*"}}} }, `mpi a: devices: "/etc/*": want a pattern below /dev`},
		{"variables", func(c *Config) { c.Env = Env{Set: map[string]string{"_A1": ""}, Unset: []string{"B"}} }, ""},
		{"a variable without a name", func(c *Config) { c.Env.Append = map[string]string{"1A": "x"} }, `env.append: "1A" is not the name of a variable`},
		{"a variable set and unset", func(c *Config) { c.Env = Env{Set: map[string]string{"A": "1"}, Unset: []string{"A"}} }, "env.set: A is in env.unset, too"},
		{"mpi with half a variable", func(c *Config) { c.MPI = []MPI{{Name: "a", Libraries: []string{"a"}, Env: []string{"A"}}} }, `mpi a: env: "A": want NAME=VALUE`},
		{"mpi that is missing", func(c *Config) { c.Container.MPI = "b" }, `container.mpi = "b": there is no [[mpi]] of that name`},
		{"mount set", func(c *Config) {
			c.MountSets = []MountSet{{Name: "cxi", Use: UseAlways, Annotation: "a=", Mounts: []string{"/a"}}, {Name: "b", Env: []string{"A=1"}}}
		}, ""},
		{"mount set without anything", func(c *Config) { c.MountSets = []MountSet{{}} }, "mount_set.name = \"\": want a name of letters, digits and ._-, not a word for yes or no\nmount_set : want libraries, mounts, devices or env"},
		{"mount set twice", func(c *Config) {
			c.MountSets = []MountSet{{Name: "a", Env: []string{"A=1"}}, {Name: "a", Env: []string{"A=1"}}}
		}, `mount_set.name = "a": is there twice`},
		{"mount set with another use", func(c *Config) { c.MountSets = []MountSet{{Name: "a", Use: "auto", Env: []string{"A=1"}}} }, `mount_set a: use = "auto": want asked, always or image`},
		{"mount set for images with nothing", func(c *Config) { c.MountSets = []MountSet{{Name: "a", Use: UseImage, Env: []string{"A=1"}}} }, `mount_set a: use = "image": want libraries to look for in images`},
		{"mount set with half an annotation", func(c *Config) { c.MountSets = []MountSet{{Name: "a", Annotation: "x", Env: []string{"A=1"}}} }, `mount_set a: annotation = "x": want NAME=VALUE`},
		{"mount set with what is wrong for an mpi, too", func(c *Config) {
			c.MountSets = []MountSet{{Name: "a", Libraries: []string{"x/y"}, Devices: []string{"/etc/*"}, Env: []string{"A"}}}
		}, "mount_set a: \"x/y\": want an absolute path without . and .., or a name such as libmpi.so.12\nmount_set a: devices: \"/etc/*\": want a pattern below /dev\nmount_set a: env: \"A\": want NAME=VALUE"},
		{"registries", func(c *Config) {
			c.Registries = Registries{{Name: "docker.io", Mirrors: []string{"m.example", "m.example:5000/hub/a_b-c"}}, {Name: "[::1]:5000"}, {Name: "localhost", Parallel: 32}}
		}, ""},
		{"registry without name", func(c *Config) { c.Registries = Registries{{CA: "/a"}} }, `registry.name = "": want HOST or HOST:PORT`},
		{"registry with path", func(c *Config) { c.Registries = Registries{{Name: "r.example/a"}} }, `registry.name = "r.example/a": want HOST or HOST:PORT`},
		{"registry with scheme", func(c *Config) { c.Registries = Registries{{Name: "https://r.example"}} }, `registry.name = "https://r.example": want HOST or HOST:PORT`},
		{"registry in capitals", func(c *Config) { c.Registries = Registries{{Name: "R.example"}} }, `registry.name = "R.example": want HOST or HOST:PORT`},
		{"another name of docker.io", func(c *Config) { c.Registries = Registries{{Name: "registry-1.docker.io"}} }, `registry.name = "registry-1.docker.io": want docker.io`},
		{"registry twice", func(c *Config) { c.Registries = Registries{{Name: "a.example"}, {Name: "a.example"}} }, `registry.name = "a.example": is there twice`},
		{"mirror with scheme", func(c *Config) { c.Registries = Registries{{Name: "a.example", Mirrors: []string{"http://m"}}} }, `registry a.example: mirror "http://m": want HOST[:PORT][/PATH]`},
		{"mirror that climbs", func(c *Config) { c.Registries = Registries{{Name: "a.example", Mirrors: []string{"m/../x"}}} }, `registry a.example: mirror "m/../x": want HOST[:PORT][/PATH]`},
		{"blocked mirror", func(c *Config) {
			c.Registries = Registries{{Name: "a.example", Mirrors: []string{"m.example:5000/x"}}, {Name: "m.example", Blocked: "x"}}
		}, `registry a.example: mirror "m.example:5000/x" is blocked`},
		{"relative ca", func(c *Config) { c.Registries = Registries{{Name: "a.example", CA: "a.pem"}} }, `registry a.example: ca = "a.pem": want an absolute path without . and ..`},
		{"insecure with ca", func(c *Config) { c.Registries = Registries{{Name: "a.example", CA: "/a.pem", Insecure: true}} }, `registry a.example: insecure and ca exclude each other`},
		{"too parallel", func(c *Config) { c.Registries = Registries{{Name: "a.example", Parallel: 33}} }, `registry a.example: parallel = 33: want 1 to 32`},
		{
			"all mistakes", func(c *Config) { c.Store, c.StoreOwner, c.PullTimeout = Dirs{""}, "root", -1 },
			"store = \"\": want an absolute path without . and ..\nstore_owner = \"root\": want a user without privilege\npull_timeout: want more than zero",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			tt.change(&c)
			if err := fmt.Sprint(c.Check()); err != tt.err && (tt.err != "" || err != "<nil>") {
				t.Errorf("Check = %s; want %q", err, tt.err)
			}
		})
	}
}

func TestUserCache(t *testing.T) {
	c := Config{Cache: "/s/{user}-{uid}/{home}"}
	if got := c.UserCache("ada", 1815, "/home/{uid}"); got != "/s/ada-1815//home/{uid}" {
		t.Errorf("UserCache = %q; want each word replaced once", got)
	}
}

func TestRegistriesFor(t *testing.T) {
	all := Registries{{Name: "a.example", Insecure: true}, {Name: "a.example:5000", Parallel: 1}}
	for _, tt := range []struct {
		host string
		want Registry
	}{
		{"a.example", Registry{Name: "a.example", Insecure: true, Parallel: 4}},
		{"a.example:443", Registry{Name: "a.example", Insecure: true, Parallel: 4}},
		{"a.example:5000", Registry{Name: "a.example:5000", Parallel: 1}},
		{"b.a.example", Registry{Name: "b.a.example", Parallel: 4}},
	} {
		if got := all.For(tt.host); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("For(%s) = %+v; want %+v", tt.host, got, tt.want)
		}
	}
}

// TestJSON checks that the helper gets what the library decided.
func TestJSON(t *testing.T) {
	want := Default()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Unmarshal(%s) = %+v, %v; want %+v", text, got, err, want)
	}
}

// TestSyncText checks that a node reads what srun wrote.
func TestSyncText(t *testing.T) {
	for _, want := range []Sync{
		Default().Sync,
		{Ports: PortRange{7000, 7001}, Fanout: 2, Timeout: Duration(90 * time.Second), Interface: "hsn0", Address: `{node}-"hsn"`},
	} {
		if got, err := ParseSync(want.String()); err != nil || got != want {
			t.Errorf("ParseSync(%s) = %+v, %v; want %+v", want, got, err, want)
		}
	}
	low := Default().Sync
	low.Ports.First = 22
	for _, bad := range []string{low.String(), "sync = {port = 1}", "nonsense"} {
		if got, err := ParseSync(bad); err == nil {
			t.Errorf("ParseSync(%s) = %+v; want an error", bad, got)
		}
	}
}

func TestAddressOf(t *testing.T) {
	for pattern, want := range map[string]string{"{address}": "10.0.0.1", "{node}-hsn": "n1-hsn", "{node}.{address}": "n1.10.0.0.1"} {
		if got := (Sync{Address: pattern}).AddressOf("n1", "10.0.0.1"); got != want {
			t.Errorf("AddressOf with %s = %s; want %s", pattern, got, want)
		}
	}
}
