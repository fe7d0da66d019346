// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
)

// tree is a root file system, or a host, with libraries that a linker has made.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) tree {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs a C compiler")
	}
	return tree{t, t.TempDir()}
}

// OpenFile makes the tree an image. Its links are relative.
func (f tree) OpenFile(path string) (*os.File, string, error) {
	resolved, err := filepath.EvalSymlinks(f.dir + path)
	if err != nil {
		return nil, "", err
	}
	file, err := os.Open(resolved)
	return file, strings.TrimPrefix(resolved, f.dir), err
}

func (f tree) Cover(*os.File, string) error { panic("not called") }
func (f tree) Add(string, string) error     { panic("not called") }
func (f tree) AddFile(string, []byte) error { panic("not called") }

// symbol is the function that a library has.
func symbol(name string) string {
	return "have_" + strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r == '+' {
			return '_'
		}
		return r
	}, name)
}

// library makes a library whose SONAME ends with its first number, with a link of that
// name. Its symbols have a version, unless that is "", and it uses one of each other
// library, which are files. It returns its file.
func (f tree) library(path, version string, needs ...string) string {
	f.t.Helper()
	name, _, _ := strings.Cut(filepath.Base(path), ".so.")
	major, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), name+".so."), ".")
	soname := name + ".so." + major
	source, script := f.t.TempDir()+"/source.c", f.t.TempDir()+"/versions"
	text := "void " + symbol(soname) + "(void) {"
	declared := ""
	for _, other := range needs {
		base := filepath.Base(other)
		declared += "void " + symbol(base) + "(void);\n"
		text += " " + symbol(base) + "();"
	}
	args := []string{"-shared", "-nostdlib", "-fPIC", "-Wl,--no-as-needed", "-Wl,-soname," + soname, "-o", f.dir + path, source}
	if version != "" {
		args = append(args, "-Wl,--version-script="+script)
	}
	err := errors.Join(
		os.MkdirAll(filepath.Dir(f.dir+path), 0o755),
		os.WriteFile(source, []byte(declared+text+" }\n"), 0o600),
		os.WriteFile(script, []byte(version+" { global: *; };\n"), 0o600),
	)
	if err != nil {
		f.t.Fatal(err)
	}
	if out, err := exec.Command("gcc", append(args, needs...)...).CombinedOutput(); err != nil {
		f.t.Fatalf("gcc: %v: %s", err, out)
	}
	link := filepath.Join(filepath.Dir(f.dir+path), soname)
	if link != f.dir+path {
		if err := os.Symlink(filepath.Base(path), link); err != nil {
			f.t.Fatal(err)
		}
	}
	return link
}

// site is a host and an image with a C library.
type site struct {
	host, image tree
	files       *hook.Image
}

func newSite(t *testing.T) site {
	t.Helper()
	s := site{host: newTree(t), image: newTree(t)}
	s.image.library("/usr/lib/libc.so.6", "GLIBC_2.30")
	s.files = hook.NewImage(s.image)
	return s
}

func (s site) plan(env ...string) *Plan {
	p := New(s.files, env, Purposes{}, "test", "leave it")
	s.image.t.Cleanup(p.Close)
	return p
}

// shown lists what will be shown in the image: paths of the image, which ends in "+"
// where there is no file, and names of the host's files.
func (s site) shown(p *Plan) string {
	s.image.t.Helper()
	if err := p.CarryOut(); err != nil {
		s.image.t.Fatal(err)
	}
	all := map[string]string{}
	for _, dir := range []string{"/usr/lib", "/opt/lib"} {
		entries, _ := os.ReadDir(s.image.dir + dir)
		for _, e := range entries {
			f, resolved, err := s.image.OpenFile(dir + "/" + e.Name())
			if err != nil {
				s.image.t.Fatal(err)
			}
			if source := s.files.Covered(f); source != "" {
				all[resolved] = filepath.Base(source)
			}
			f.Close()
		}
	}
	for name, h := range p.adds {
		if s.files.Added("/usr/lib/"+name) != h.Path {
			s.image.t.Errorf("%s is to be added and is not", name)
		}
		all["/usr/lib/"+name+"+"] = filepath.Base(h.Path)
	}
	text := ""
	for _, path := range slices.Sorted(maps.Keys(all)) {
		text += path + " " + all[path] + "\n"
	}
	return text
}

func (s site) expect(p *Plan, err error, want string) {
	s.image.t.Helper()
	if err != nil {
		s.image.t.Fatal(fault.Format("", err))
	}
	if got := s.shown(p); got != want {
		s.image.t.Errorf("the image is shown\n%swant\n%snotes %q", got, want, p.Notes)
	}
}

func noted(p *Plan, text string) bool {
	return slices.ContainsFunc(p.Notes, func(n string) bool { return strings.Contains(n, text) })
}

func TestComplete(t *testing.T) {
	s := newSite(t)
	more := s.host.library("/lib/libmore.so.2.0.0", "")
	s.host.library("/lib/libfabric.so.1.5", "", more)
	s.image.library("/usr/lib/libfabric.so.1.2", "")
	s.image.library("/opt/lib/libfabric.so.1.0", "")
	p := s.plan("LD_LIBRARY_PATH=/opt/lib")
	err := p.Complete([]string{s.host.dir + "/lib/libfabric.so.1"})
	if got := p.Serves("libfabric.so.1"); got != s.host.dir+"/lib/libfabric.so.1.5" {
		t.Errorf("a program finds %s", got)
	}
	if got := p.Serves("libmore.so.2"); got != s.host.dir+"/lib/libmore.so.2.0.0" {
		t.Errorf("a program finds %s, which the host's needs", got)
	}
	s.expect(p, err, "/opt/lib/libfabric.so.1.0 libfabric.so.1.5\n/usr/lib/libmore.so.2+ libmore.so.2.0.0\n")
	looked := ""
	for _, f := range p.Findings().Sources {
		looked += filepath.Base(f.Path) + " "
	}
	if looked != "libfabric.so.1 libfabric.so.1.5 libmore.so.2 libmore.so.2.0.0 " {
		t.Errorf("what is remembered depends on %s", looked)
	}
}

func TestCompleteKeepsNewer(t *testing.T) {
	s := newSite(t)
	s.host.library("/libfabric.so.1.5", "")
	s.image.library("/usr/lib/libfabric.so.1.9", "")
	p := s.plan()
	s.expect(p, p.Complete([]string{s.host.dir + "/libfabric.so.1"}), "")
	if !noted(p, "the image's libfabric.so.1.9 stays: it is newer than the host's libfabric.so.1.5") {
		t.Errorf("notes %q", p.Notes)
	}
	if got := p.Serves("libfabric.so.1"); got != "/usr/lib/libfabric.so.1.9" {
		t.Errorf("a program finds %s", got)
	}
}

// TestCompleteByVersions checks that a library of the image stays where it has what the
// host's need, and only there.
func TestCompleteByVersions(t *testing.T) {
	for _, tt := range []struct{ image, want string }{
		{"MORE_2", ""},
		{"MORE_1", "/usr/lib/libmore.so.2.0 libmore.so.2.1\n"},
	} {
		s := newSite(t)
		more := s.host.library("/libmore.so.2.1", "MORE_2")
		s.host.library("/libfabric.so.1.5", "", more)
		s.image.library("/usr/lib/libmore.so.2.0", tt.image)
		p := s.plan()
		s.expect(p, p.Complete([]string{s.host.dir + "/libfabric.so.1"}), "/usr/lib/libfabric.so.1+ libfabric.so.1.5\n"+tt.want)
	}
}

// TestTogether checks that libraries of one release are not mixed.
func TestTogether(t *testing.T) {
	s := newSite(t)
	core := s.host.library("/libcore-a.so.1.1", "")
	other := s.host.library("/libcore-b.so.1.1", "")
	s.host.library("/libfabric.so.1.5", "", core, other)
	s.image.library("/usr/lib/libcore-a.so.1.9", "")
	p := s.plan()
	p.Together = []string{"libcore-"}
	s.expect(p, p.Complete([]string{s.host.dir + "/libfabric.so.1"}),
		"/usr/lib/libcore-a.so.1.9 libcore-a.so.1.1\n/usr/lib/libcore-b.so.1+ libcore-b.so.1.1\n/usr/lib/libfabric.so.1+ libfabric.so.1.5\n")
}

func TestCompleteRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		make  func(s site) (dependency string)
		is    error
		want  string
		hints string
	}{
		{
			"no C library", func(s site) string {
				if err := os.Remove(s.image.dir + "/usr/lib/libc.so.6"); err != nil {
					s.image.t.Fatal(err)
				}
				return s.host.library("/libfabric.so.1.5", "")
			}, ErrNoGNU, "the image has none for this machine", "leave it; otherwise use an image of a distribution with the GNU C library",
		},
		{
			"an old C library", func(s site) string {
				return s.host.library("/libfabric.so.1.5", "", s.host.library("/libc.so.6", "GLIBC_2.36"))
			}, nil, "the host's libfabric.so.1.5 needs GLIBC_2.36, and the image's libc.so.6 has only GLIBC_2.30", "--container-glibc",
		},
		{
			"a part of the C library", func(s site) string { return s.host.library("/libc.so.6", "GLIBC_2.30") },
			nil, "dependency libc.so.6 is part of the C library", "",
		},
		{
			"what the host lacks", func(s site) string {
				gone := s.host.library("/libbrolgagone.so.1", "")
				l := s.host.library("/libfabric.so.1.5", "", gone)
				if err := os.Remove(gone); err != nil {
					s.image.t.Fatal(err)
				}
				return l
			}, errMissing, "the host's libfabric.so.1.5 needs libbrolgagone.so.1", "",
		},
		{
			"no such dependency", func(s site) string { return s.host.dir + "/libfabric.so.1" },
			os.ErrNotExist, "open the host's library", "",
		},
		{
			"not a library", func(s site) string {
				path := s.host.dir + "/libfabric.so.1"
				if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
					s.image.t.Fatal(err)
				}
				return path
			}, nil, "read the host's library", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			p := s.plan()
			err := p.Complete([]string{tt.make(s)})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(fault.Hint(err), tt.hints) {
				t.Fatalf("Complete = %v; want %q", err, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Complete = %v; want %v", err, tt.is)
			}
		})
	}
}

// TestTooMany checks that an image cannot make the helper read for ever.
func TestTooMany(t *testing.T) {
	s := newSite(t)
	var dirs []string
	for n := range maxTries {
		dirs = append(dirs, fmt.Sprintf("/%d", n))
	}
	s.host.library("/libfabric.so.1.5", "")
	p := s.plan("LD_LIBRARY_PATH=/usr/lib:" + strings.Join(dirs, ":"))
	err := p.Complete([]string{s.host.dir + "/libfabric.so.1"})
	if err == nil || !strings.Contains(err.Error(), "too many libraries") {
		t.Errorf("Complete = %v", err)
	}
}

// TestModules checks that what modules need comes along, and that those which the host
// itself cannot load are left alone.
func TestModules(t *testing.T) {
	s := newSite(t)
	gone := s.host.library("/libbrolgagone.so.1", "")
	s.host.library("/libfabric.so.1.5", "")
	s.host.library("/modules/liba.so.1", "", s.host.library("/modules/libmore.so.2.0", ""))
	s.host.library("/modules/libb.so.1", "", gone)
	for _, name := range []string{"liba", "libb"} {
		if err := os.Rename(s.host.dir+"/modules/"+name+".so.1", s.host.dir+"/modules/"+name+".so"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Remove(gone), os.WriteFile(s.host.dir+"/modules/text.so", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	p := s.plan()
	err := p.Complete([]string{s.host.dir + "/libfabric.so.1"})
	if err == nil {
		err = p.Modules(s.host.dir + "/modules")
	}
	s.expect(p, err, "/usr/lib/libfabric.so.1+ libfabric.so.1.5\n/usr/lib/libmore.so.2+ libmore.so.2.0\n")
	if !noted(p, "a module will not be loaded: the host's libb.so.1 needs libbrolgagone.so.1") {
		t.Errorf("notes %q", p.Notes)
	}
	if err := p.Modules(s.host.dir + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Modules of a directory that is missing = %v", err)
	}
}

func TestAddMissing(t *testing.T) {
	s := newSite(t)
	old := s.host.library("/libold.so.1.9", "")
	fresh := s.host.library("/libnew.so.1.9", "")
	s.host.library("/libdriver.so.1.0", "", old, fresh)
	s.image.library("/usr/lib/libold.so.1.0", "")
	p := s.plan()
	driver, err := p.Host.Named(s.host.dir + "/libdriver.so.1")
	if err != nil {
		t.Fatal(err)
	}
	p.Add("libdriver.so.1", driver)
	s.expect(p, p.AddMissing(), "/usr/lib/libdriver.so.1+ libdriver.so.1.0\n/usr/lib/libnew.so.1+ libnew.so.1.9\n")
}

// TestAfterAnother checks that a hook counts on what an earlier one will show.
func TestAfterAnother(t *testing.T) {
	s := newSite(t)
	more := s.host.library("/first/libmore.so.2.7", "MORE_7")
	s.host.library("/first/libfabric.so.1.3", "")
	s.image.library("/usr/lib/libfabric.so.1.0", "")
	first := s.plan()
	if err := first.Complete([]string{s.host.dir + "/first/libfabric.so.1", more}); err != nil {
		t.Fatal(err)
	}
	if err := first.CarryOut(); err != nil {
		t.Fatal(err)
	}

	s.host.library("/second/libfabric.so.1.5", "")
	s.host.library("/second/libmpi.so.1.0", "", more)
	p := s.plan()
	err := p.Complete([]string{s.host.dir + "/second/libmpi.so.1"})
	for _, c := range p.Image.Named([]string{"libfabric.so.1"}, nil) {
		h, err := p.Host.Named(s.host.dir + "/second/libfabric.so.1")
		if err != nil {
			t.Fatal(err)
		}
		p.Cover(c, h)
	}
	if got := p.Serves("libfabric.so.1") + " " + p.Serves("libmore.so.2"); got != s.host.dir+"/first/libfabric.so.1.3 "+s.host.dir+"/first/libmore.so.2.7" {
		t.Errorf("programs find %s", got)
	}
	s.expect(p, err, "/usr/lib/libfabric.so.1.0 libfabric.so.1.3\n/usr/lib/libmpi.so.1+ libmpi.so.1.0\n")
	if !noted(p, "first/libfabric.so.1.3 of the host stays at /usr/lib/libfabric.so.1.0: another hook has put it there") {
		t.Errorf("notes %q", p.Notes)
	}
}

// TestWithPurpose checks that a library is found by what it is for, whatever its vendor
// calls it, once for all its names, and not where the ABI is another.
func TestWithPurpose(t *testing.T) {
	s := newSite(t)
	s.host.library("/libmpi.so.12.3", "")
	s.image.library("/usr/lib/libmpi.so.40.1", "")
	s.image.library("/opt/lib/libmpich.so.12.1", "")
	if err := os.Symlink("libmpich.so.12.1", s.image.dir+"/opt/lib/libmpi.so.12"); err != nil {
		t.Fatal(err)
	}
	p := New(s.files, []string{"LD_LIBRARY_PATH=/none", "LD_LIBRARY_PATH=/opt/lib"}, Purposes{Names: map[string][]string{"C": {"libmpi", "libmpich"}}}, "test", "")
	defer p.Close()
	h, err := p.Host.Named(s.host.dir + "/libmpi.so.12")
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	for _, l := range p.Image.WithPurpose(h) {
		found += l.Path + " "
	}
	if found != "/opt/lib/libmpich.so.12.1 " {
		t.Errorf("WithPurpose found %s", found)
	}
}
