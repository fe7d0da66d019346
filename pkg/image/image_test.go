// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// site is a whole installation: a registry, a store, a client, two users.
type site struct {
	dir, registry string
	conf          config.Config
	confPath      string

	mu       sync.Mutex
	requests []string
}

// storeOwner is an account that every system has and no test needs.
const storeOwner = "nobody"

// built is where the tests' brolga command is, once one of them needed it, and prefix
// the directory that it is installed in.
var built, prefix string

// TestMain removes them.
func TestMain(m *testing.M) {
	status := m.Run()
	if prefix != "" {
		os.RemoveAll(prefix)
	}
	os.Exit(status)
}

// buildClient builds the brolga command and the launcher that confines it, once for
// all tests.
func buildClient(t *testing.T) string {
	t.Helper()
	if built != "" {
		return built
	}
	dir, err := os.MkdirTemp("", "brolga-client")
	if err == nil {
		err = os.Chmod(dir, 0o755) // the store owner executes what is there
	}
	if err != nil {
		t.Fatal(err)
	}
	prefix = dir
	libexec := filepath.Join(dir, "libexec/brolga")
	if err := os.MkdirAll(libexec, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("make", "--silent", "-C", "../..", "BUILD="+libexec, "PREFIX="+dir, filepath.Join(libexec, "brolga"), filepath.Join(libexec, "brolga-launch"))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make: %v\n%s", err, out)
	}
	built = filepath.Join(libexec, "brolga")
	return built
}

// newSite makes a site. It needs root, because it acts as others.
func newSite(t *testing.T) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/usr/bin/tar2sqfs"); err != nil {
		t.Skip("needs tar2sqfs")
	}
	dir, err := os.MkdirTemp("", "brolga-image")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &site{dir: dir, confPath: filepath.Join(dir, "brolga.toml")}
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	s.registry = strings.TrimPrefix(web.URL, "http://")

	owner, err := store.LookupOwner(storeOwner)
	if err != nil {
		t.Fatal(err)
	}
	client := filepath.Join(dir, "brolga")
	if err := os.Link(buildClient(t), client); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	text := fmt.Sprintf("run_dir = %q\nstore = %q\nstore_owner = %q\ncache = %q\nclient = %q\nstore_user_share = \"0\"\n", dir+"/run", store, storeOwner, dir+"/cache/{uid}", client)
	err = errors.Join(
		os.Chmod(dir, 0o755),
		os.WriteFile(s.confPath, []byte(text), 0o644),
		os.Mkdir(store, 0o711),
		os.Chown(store, int(owner.UID), int(owner.GID)),
		os.Mkdir(filepath.Join(dir, "cache"), 0o777),
		os.Chmod(filepath.Join(dir, "cache"), 0o777),
	)
	if err != nil {
		t.Fatal(err)
	}
	if s.conf, _, err = config.Load(s.confPath, os.ReadFile); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) source(uid uint32) Source {
	return Source{Config: s.conf, ConfigPath: s.confPath, User: identity.User{UID: uid, GID: uid, Name: "test", Home: s.dir}}
}

// push makes an image and returns its name.
func (s *site) push(t *testing.T, tag string) ref.Ref {
	t.Helper()
	img, err := random.Image(10_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	conf = conf.DeepCopy()
	conf.OS, conf.Architecture = "linux", runtime.GOARCH
	conf.Config.Env = []string{"A=b"}
	if img, err = mutate.ConfigFile(img, conf); err != nil {
		t.Fatal(err)
	}
	n, err := name.ParseReference(s.registry + "/test:" + tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(n, img); err != nil {
		t.Fatal(err)
	}
	r, err := ref.Parse(n.Name())
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.requests = nil
	s.mu.Unlock()
	return r
}

func (s *site) count(part string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.Contains(r, part) {
			n++
		}
	}
	return n
}

func TestGet(t *testing.T) {
	s := newSite(t)
	r := s.push(t, "1")

	// Four nodes at once: one pull, one conversion.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			img, err := Get(t.Context(), s.source(4711), r)
			if err != nil {
				t.Error(err)
				return
			}
			defer img.Close()
			if len(img.Meta.Config.Env) != 1 || img.Meta.Name != r.String() || img.Meta.Size == 0 {
				t.Errorf("the image's data are %+v", img.Meta)
			}
		})
	}
	wg.Wait()
	if m, b := s.count("/manifests/"), s.count("/blobs/"); m != 1 || b != 4 {
		t.Errorf("4 users of one cache: %d requests of manifests, %d of blobs; want 1 and 4", m, b)
	}
	images, err := filepath.Glob(filepath.Join(s.conf.Store[0], "sha256", "*"))
	if err != nil || len(images) != 2 {
		t.Errorf("the store has %q, %v; want an image and its data", images, err)
	}

	start := time.Now()
	img, err := Get(t.Context(), s.source(4711), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("warm: %v", time.Since(start))
	magic := make([]byte, 4)
	if _, err := img.File.ReadAt(magic, 0); err != nil || string(magic) != "hsqs" {
		t.Errorf("the image begins with %q, %v", magic, err)
	}
	img.Close()

	// Another user must fetch the manifest, but not the layers.
	before := s.count("/blobs/")
	other, err := Get(t.Context(), s.source(4712), r)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	if got := s.count("/blobs/") - before; got != 1 {
		t.Errorf("the second user fetched %d blobs; want the configuration", got)
	}

	// The store lost the image: the second user has no layers.
	for _, path := range images {
		os.Remove(path)
	}
	if other, err = Get(t.Context(), s.source(4712), r); err != nil {
		t.Fatal(err)
	}
	other.Close()
}

// TestGetForAFleet has the helpers of many nodes start at once, with a cache and
// a store that they share and that are empty. What the registry sees is what it
// sees of one.
func TestGetForAFleet(t *testing.T) {
	const nodes = 256
	s := newSite(t)
	one := s.push(t, "1")
	img, err := Get(t.Context(), s.source(4711), one)
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	want := s.count("")

	all := s.push(t, "2")
	start := time.Now()
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() {
			src := s.source(4711)
			src.Config.RunDir = filepath.Join(s.dir, fmt.Sprintf("run-%d", i))
			if err := os.Mkdir(src.Config.RunDir, 0o755); err != nil {
				t.Error(err)
			}
			img, err := Get(t.Context(), src, all)
			if err != nil {
				t.Error(err)
				return
			}
			img.Close()
		})
	}
	wg.Wait()
	if got := s.count(""); got != want {
		t.Errorf("%d helpers made %d requests; want the %d of one", nodes, got, want)
	}
	t.Logf("%d helpers made %d requests in %.1f s", nodes, want, time.Since(start).Seconds())
}

func TestGetFailures(t *testing.T) {
	s := newSite(t)
	good := s.push(t, "1")
	bad := good
	bad.Tag = "nope"
	for _, tt := range []struct {
		name  string
		ref   ref.Ref
		spoil func(*Source)
		err   string
		hint  string
	}{
		{
			name: "no such tag", ref: bad,
			err: fmt.Sprintf("pull %s: the registry has no such image or tag", bad),
		},
		{
			name: "no store", ref: good, spoil: func(c *Source) { c.Config.Store = config.Dirs{"/no/such/store"} },
			err:  fmt.Sprintf("get image %s: the store /no/such/store does not exist", good),
			hint: "owned by " + storeOwner,
		},
		{
			name: "no owner", ref: good, spoil: func(c *Source) { c.Config.StoreOwner = "no-such-user" },
			err:  fmt.Sprintf("get image %s: look up store_owner: user: unknown user no-such-user", good),
			hint: "useradd",
		},
		{
			name: "no client", ref: bad, spoil: func(c *Source) { c.Config.Client = "/no/such/client" },
			err: fmt.Sprintf("get image %s: run /no/such/client: fork/exec /no/such/client: no such file or directory", bad),
		},
		{
			name: "time is up", ref: bad, spoil: func(c *Source) {
				c.Config.Client = "/bin/sh"
				c.ConfigPath = ""
				c.Config.PullTimeout = 1
			},
			err: fmt.Sprintf("get image %s: pull %[1]s: not done after 1ns", bad),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := s.source(4711)
			if tt.spoil != nil {
				tt.spoil(&src)
			}
			_, err := Get(t.Context(), src, tt.ref)
			if err == nil || err.Error() != tt.err || !strings.Contains(fault.Hint(err), tt.hint) {
				t.Errorf("Get = %v\n(hint %q)\nwant %s (hint with %q)", err, fault.Hint(err), tt.err, tt.hint)
			}
		})
	}
}

// TestGetNeedsTheManifest: a user who cannot fetch an image cannot run it,
// although the store has it, and cannot use another user's cache.
func TestGetNeedsTheManifest(t *testing.T) {
	s := newSite(t)
	r := s.push(t, "1")
	img, err := Get(t.Context(), s.source(4711), r)
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	pinned := r
	pinned.Digest = img.Meta.Digest
	src := s.source(4712)
	src.Config.Client = "/bin/false" // no registry
	if _, err := Get(t.Context(), src, pinned); err == nil {
		t.Error("user 4712 got the image without its manifest")
	}
	src.Config.Cache = s.dir + "/cache/4711"
	if _, err := Get(t.Context(), src, pinned); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Get of user 4712 from the cache of 4711 = %v; want %v", err, fs.ErrPermission)
	}
}

// keptOut runs f on a thread that is root without what overrides permissions:
// what a file server with root squash makes of root.
func keptOut(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with f
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		err := unix.Capget(&header, &caps[0])
		for _, c := range []int{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER} {
			caps[0].Effective &^= 1 << c
			caps[0].Permitted &^= 1 << c
		}
		if err = errors.Join(err, unix.Capset(&header, &caps[0])); err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestGetRootSquash: a store that root cannot look into is good enough, to
// convert into, to run from and to note the last use in.
func TestGetRootSquash(t *testing.T) {
	s := newSite(t)
	r := s.push(t, "1")
	dir := s.conf.Store[0]
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	keptOut(t, func() {
		if _, err := os.ReadDir(dir); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("root can read the store: %v", err)
		}
		for range 2 {
			img, err := Get(t.Context(), s.source(4711), r)
			if err != nil {
				t.Error(err)
				return
			}
			img.Close()
		}
	})
	data, err := filepath.Glob(filepath.Join(dir, "sha256", "*.json"))
	if err != nil || len(data) != 1 {
		t.Fatalf("the store has %q, %v", data, err)
	}
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(data[0], long, long); err != nil {
		t.Fatal(err)
	}
	keptOut(t, func() {
		img, err := Get(t.Context(), s.source(4711), r)
		if err != nil {
			t.Error(err)
			return
		}
		img.Close()
	})
	if st, err := os.Stat(data[0]); err != nil || time.Since(st.ModTime()) > time.Hour {
		t.Errorf("the last use was not noted: %v, %v", st.ModTime(), err)
	}
}

// TestGetReadOnlyStore: what is in a store that cannot be written runs, and what
// is not goes to the next one.
func TestGetReadOnlyStore(t *testing.T) {
	s := newSite(t)
	old, other := s.push(t, "1"), s.push(t, "2")
	img, err := Get(t.Context(), s.source(4711), old)
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	dir := s.conf.Store[0]
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if img, err = Get(t.Context(), s.source(4711), old); err != nil {
		t.Fatal(err)
	}
	img.Close()
	if _, err := Get(t.Context(), s.source(4711), other); err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("Get of an image that is not there = %v", err)
	}
	second := filepath.Join(s.dir, "second")
	owner, err := store.LookupOwner(storeOwner)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(second, 0o711), os.Chown(second, int(owner.UID), int(owner.GID))); err != nil {
		t.Fatal(err)
	}
	s.tier(t, second)
	if img, err = Get(t.Context(), s.source(4711), other); err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if !strings.HasPrefix(img.File.Name(), second) {
		t.Errorf("the image is %s; want it in %s", img.File.Name(), second)
	}
}

// tier adds a store to the site.
func (s *site) tier(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(s.confPath)
	if err != nil {
		t.Fatal(err)
	}
	first := fmt.Sprintf("store = %q\n", s.conf.Store[0])
	changed := strings.Replace(string(text), first, fmt.Sprintf("store = [%q, %q]\n", s.conf.Store[0], dir), 1)
	if err := os.WriteFile(s.confPath, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	if s.conf, _, err = config.Load(s.confPath, os.ReadFile); err != nil || len(s.conf.Store) != 2 {
		t.Fatalf("stores %v, %v; want two", s.conf.Store, err)
	}
}

// TestGetCopy: with store_copy_to a step runs from the node's copy, also when it
// does not have one yet, and from the store when there is no room.
func TestGetCopy(t *testing.T) {
	s := newSite(t)
	r := s.push(t, "1")
	copies := filepath.Join(s.dir, "copies")
	for _, tt := range []struct {
		name  string
		limit config.Size
		from  string
	}{
		{"no room", 1, s.conf.Store[0]},
		{"copied", 1 << 30, copies},
		{"copied before", 1 << 30, copies},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := s.source(4711)
			src.Config.StoreCopyTo, src.Config.StoreCopySize = copies, tt.limit
			img, err := Get(t.Context(), src, r)
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			if !strings.HasPrefix(img.File.Name(), tt.from) {
				t.Errorf("runs from %s; want %s", img.File.Name(), tt.from)
			}
		})
	}
	// Who runs copies only still uses the image of the store.
	long := time.Now().Add(-48 * time.Hour)
	for _, dir := range []string{copies, s.conf.Store[0]} {
		data, err := filepath.Glob(filepath.Join(dir, "sha256", "*.json"))
		if err != nil || len(data) != 1 {
			t.Fatalf("%s has %q, %v", dir, data, err)
		}
		if err := os.Chtimes(data[0], long, long); err != nil {
			t.Fatal(err)
		}
		if dir == copies {
			continue
		}
		src := s.source(4711)
		src.Config.StoreCopyTo, src.Config.StoreCopySize = copies, 1<<30
		img, err := Get(t.Context(), src, r)
		if err != nil {
			t.Fatal(err)
		}
		img.Close()
		if st, err := os.Stat(data[0]); err != nil || time.Since(st.ModTime()) > time.Hour {
			t.Errorf("the use of a copy was not noted in the store: %v", err)
		}
	}
	if st, err := os.Stat(copies); err != nil || st.Mode().Perm() != 0o711 || st.Sys().(*syscall.Stat_t).Uid == 0 {
		t.Errorf("the directory of copies is %v, %v; want it closed and the store owner's", st.Mode(), err)
	}
}
