// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	inprocess "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// server is a registry that counts requests and can misbehave.
type server struct {
	host     string
	registry http.Handler

	mu       sync.Mutex
	requests []string // METHOD PATH, without those of pings
	bytes    int64    // sent as content of blobs
	// fault, if set, may answer a request itself; it returns whether it did.
	fault func(w http.ResponseWriter, r *http.Request) bool
}

func newServer(t *testing.T) *server {
	s := &server{registry: inprocess.New(inprocess.Logger(log.New(io.Discard, "", 0)))}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	s.host = strings.TrimPrefix(web.URL, "http://")
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if r.URL.Path != "/v2/" {
		s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	}
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	s.registry.ServeHTTP(&counter{w, r, s}, r)
}

// counter counts what is sent of blobs.
type counter struct {
	http.ResponseWriter
	r *http.Request
	s *server
}

func (c *counter) Write(b []byte) (int, error) {
	if c.r.Method == http.MethodGet && strings.Contains(c.r.URL.Path, "/blobs/") {
		c.s.mu.Lock()
		c.s.bytes += int64(len(b))
		c.s.mu.Unlock()
	}
	return c.ResponseWriter.Write(b)
}

// reset forgets what was counted and sets the fault.
func (s *server) reset(fault func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.bytes, s.fault = nil, 0, fault
}

func (s *server) count(part string) int {
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

// push makes an image of random layers for this platform.
func (s *server) push(t *testing.T, tag string, layers int, size int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, int64(layers))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	conf = conf.DeepCopy()
	conf.OS, conf.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, conf); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(s.name(t, tag), img); err != nil {
		t.Fatal(err)
	}
	return img
}

func (s *server) name(t *testing.T, tag string) name.Reference {
	t.Helper()
	n, err := name.ParseReference(s.host + "/test/image:" + tag)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *server) options(t *testing.T, tag string) Options {
	t.Helper()
	sep := ":"
	if ref.IsDigest(tag) {
		sep = "@"
	}
	r, err := ref.Parse(s.host + "/test/image" + sep + tag)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Ref: r, Layout: filepath.Join(t.TempDir(), "cache"), Pause: time.Millisecond}
}

// check verifies that the cache has the whole image, and nothing half-done.
func check(t *testing.T, o Options) layout.Manifest {
	t.Helper()
	l, err := layout.Open(o.Layout)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := l.Resolve(o.Ref)
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.Manifest(digest, layout.Host())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Blobs() {
		if _, err := l.ReadBlob(d.Digest, d.Size); err != nil {
			t.Error(err)
		}
	}
	if left := leftovers(t, o); len(left) > 0 {
		t.Errorf("the cache has %q", left)
	}
	return m
}

func leftovers(t *testing.T, o Options) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(o.Layout, "blobs", "sha256", ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestPullCountsRequests(t *testing.T) {
	s := newServer(t)
	img := s.push(t, "1", 3, 1000)
	o := s.options(t, "1")
	for _, tt := range []struct {
		name             string
		manifests, blobs int
	}{
		{"first", 1, 4},
		{"unchanged", 1, 0},
	} {
		s.reset(nil)
		if _, err := Pull(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		check(t, o)
		if m, b := s.count("/manifests/"), s.count("/blobs/"); m != tt.manifests || b != tt.blobs || len(s.requests) != m+b {
			t.Errorf("%s pull: requests %q; want %d of manifests, %d of blobs", tt.name, s.requests, tt.manifests, tt.blobs)
		}
	}

	cached := o
	cached.IfMissing = true
	s.reset(nil)
	if _, err := Pull(t.Context(), cached); err != nil || len(s.requests) != 0 {
		t.Errorf("pull if missing: %v, requests %q; want none", err, s.requests)
	}

	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	pinned := o
	pinned.Ref.Digest = digest.String()
	s.reset(nil)
	res, err := Pull(t.Context(), pinned)
	if err != nil || len(s.requests) != 0 || res.Digest != digest.String() || res.Manifest != digest.String() {
		t.Errorf("pull of a cached digest = %+v, %v with requests %q; want none", res, err, s.requests)
	}

	s.push(t, "1", 2, 1000)
	s.reset(nil)
	if _, err := Pull(t.Context(), o); err != nil || s.count("/manifests/") != 2 || s.count("/blobs/") != 3 {
		t.Errorf("pull of a changed tag: %v, requests %q; want 2 of manifests, 3 of blobs", err, s.requests)
	}
	check(t, o)
}

func TestPullLeavesOutLayers(t *testing.T) {
	s := newServer(t)
	s.push(t, "1", 3, 1000)
	o := s.options(t, "1")
	o.Have = func(string) bool { return true }
	s.reset(nil)
	if _, err := Pull(t.Context(), o); err != nil || s.count("/blobs/") != 1 {
		t.Errorf("Pull = %v, requests %q; want the configuration alone", err, s.requests)
	}
	o.Have = nil
	if _, err := Pull(t.Context(), o); err != nil {
		t.Error(err)
	}
	check(t, o)
}

func TestPullOnceForMany(t *testing.T) {
	s := newServer(t)
	s.push(t, "1", 3, 1000)
	o := s.options(t, "1")
	s.reset(func(http.ResponseWriter, *http.Request) bool { time.Sleep(5 * time.Millisecond); return false })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := Pull(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	check(t, o)
	if m, b := s.count("/manifests/"), s.count("/blobs/"); m != 1 || b != 4 {
		t.Errorf("4 pulls at once: %d requests of manifests, %d of blobs; want 1 and 4", m, b)
	}
}

func TestPullSelectsPlatform(t *testing.T) {
	s := newServer(t)
	img := s.push(t, "part", 1, 100)
	index := func(arch string) v1.ImageIndex {
		return mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	for _, arch := range []string{runtime.GOARCH, "s390x"} {
		if err := remote.WriteIndex(s.name(t, arch), index(arch)); err != nil {
			t.Fatal(err)
		}
	}
	o := s.options(t, runtime.GOARCH)
	res, err := Pull(t.Context(), o)
	if err != nil || res.Digest == res.Manifest {
		t.Errorf("Pull = %+v, %v; want an index", res, err)
	}
	check(t, o)
	_, err = Pull(t.Context(), s.options(t, "s390x"))
	if !errors.Is(err, layout.ErrPlatform) || !strings.HasSuffix(err.Error(), "no image for this platform, linux/"+runtime.GOARCH+"; there is linux/s390x") {
		t.Errorf("Pull = %v; want an error that lists linux/s390x", err)
	}
}

// times returns a fault that happens to the first n requests for blobs.
func times(n int, fault http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		n--
		fault(w, r)
		return true
	}
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// cut sends less than it promises.
func cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "900")
	_, _ = w.Write([]byte("too little"))
}

func hangUp(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

func wrong(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte(strings.Repeat("x", 1<<20)))
}

// TestPullFaults makes the registry fail, for a while or for good.
func TestPullFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		err   string // end of the error; empty means success
	}{
		{"busy", times(3, status(429, "Retry-After", "0")), ""},
		{"broken", times(3, status(500)), ""},
		{"unavailable", times(2, status(503)), ""},
		{"hung up", times(3, hangUp), ""},
		{"cut off", times(1, cut), ""},
		{"wrong once", times(1, wrong), ""},

		{"always busy", times(-1, status(429)), "limits the number of requests, and the limit is reached"},
		{"wait for an hour", times(-1, status(429, "Retry-After", "3600")), "and the limit is reached"},
		{"always broken", times(-1, status(500)), "status 500: Internal Server Error"},
		{"always wrong", times(-1, wrong), "is corrupt: the registry sent more than its"},
		{"denied", times(-1, status(403)), "the registry denies access"},
		{"gone", times(-1, status(404)), "the registry has no such image or tag"},
		{"always hung up", times(-1, hangUp), "ends connections without an answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.push(t, "1", 1, 900)
			s.reset(tt.fault)
			o := s.options(t, "1")
			_, err := Pull(t.Context(), o)
			if tt.err == "" {
				if err != nil {
					t.Fatalf("Pull = %v", err)
				}
				check(t, o)
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "\n") ||
				!strings.HasPrefix(err.Error(), "pull "+o.Ref.String()+": ") {
				t.Errorf("Pull = %v; want one line about the image with %q", err, tt.err)
			}
			if l, err := layout.Open(o.Layout); err == nil {
				if _, err := l.Resolve(o.Ref); err == nil {
					t.Error("the image is in the index")
				}
			}
		})
	}
}

// TestPullAsksAgainForAManifest that arrives in part or damaged.
func TestPullAsksAgainForAManifest(t *testing.T) {
	for name, fault := range map[string]http.HandlerFunc{
		"cut off": cut,
		"wrong": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", digest("a"))
			_, _ = w.Write([]byte("x"))
		},
	} {
		s := newServer(t)
		s.push(t, "1", 1, 100)
		n := 0
		s.reset(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") || n == 1 {
				return false
			}
			n++
			fault(w, r)
			return true
		})
		o := s.options(t, "1")
		if _, err := Pull(t.Context(), o); err != nil || n != 1 {
			t.Errorf("%s: Pull = %v after %d faults", name, err, n)
			continue
		}
		check(t, o)
	}
}

// TestPullCorruptLayer has a registry send other content of the right size.
func TestPullCorruptLayer(t *testing.T) {
	s := newServer(t)
	img := s.push(t, "1", 1, 900)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err1 := layers[0].Digest()
	size, err2 := layers[0].Size()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	s.reset(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, digest.String()) {
			return false
		}
		_, _ = w.Write(make([]byte, size))
		return true
	})
	o := s.options(t, "1")
	_, err = Pull(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "blob "+digest.String()+" is corrupt") {
		t.Errorf("Pull = %v; want an error that names the corrupt blob", err)
	}
	if n := s.count(digest.String()); n != 2 {
		t.Errorf("the layer was asked for %d times; want 2", n)
	}
	if _, err := os.Stat(filepath.Join(o.Layout, "blobs", "sha256", digest.Hex)); err == nil {
		t.Error("the corrupt layer is in the cache")
	}
	if left := leftovers(t, o); len(left) > 0 {
		t.Errorf("the cache has %q", left)
	}
}

// TestPullResumes stops a pull half way and looks what the next one asks for.
func TestPullResumes(t *testing.T) {
	const size = 1 << 20
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprintf("ranges %v", ranges), func(t *testing.T) {
			s := newServer(t)
			s.push(t, "1", 1, size)
			o := s.options(t, "1")
			ctx, cancel := context.WithCancel(t.Context())
			s.reset(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				s.registry.ServeHTTP(&half{ResponseWriter: w, cancel: cancel, left: size / 2, done: ctx.Done()}, r)
				return true
			})
			if _, err := Pull(ctx, o); !errors.Is(err, context.Canceled) {
				t.Fatalf("Pull = %v; want %v", err, context.Canceled)
			}
			left := leftovers(t, o)
			if len(left) != 1 {
				t.Fatalf("the cache has %q; want a partial blob", left)
			}
			st, err := os.Stat(left[0])
			if err != nil || st.Size() == 0 {
				t.Fatalf("the partial blob has %d bytes, %v", st.Size(), err)
			}
			s.reset(func(_ http.ResponseWriter, r *http.Request) bool {
				if !ranges {
					r.Header.Del("Range")
				}
				return false
			})
			if _, err := Pull(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			want := check(t, o).Layers[0].Size
			if ranges {
				want -= st.Size()
			}
			if s.bytes != want {
				t.Errorf("the second pull got %d bytes; want %d", s.bytes, want)
			}
		})
	}
}

// half sends so many bytes, ends the pull, and waits for that.
type half struct {
	http.ResponseWriter
	cancel context.CancelFunc
	left   int
	done   <-chan struct{}
}

func (h *half) Write(b []byte) (int, error) {
	if len(b) > h.left && h.left > 0 {
		n, _ := h.ResponseWriter.Write(b[:h.left])
		h.left = 0
		h.ResponseWriter.(http.Flusher).Flush()
		time.Sleep(50 * time.Millisecond)
		h.cancel()
		<-h.done
		return n, io.ErrShortWrite
	}
	h.left -= len(b)
	return h.ResponseWriter.Write(b)
}

// TestPullUnreachable lists what a reader is told when there is no registry.
func TestPullUnreachable(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tt := range []struct{ host, err string }{
		{closed.Addr().String(), "cannot be reached: connect: connection refused"},
		{"no-such-host.invalid", "no such host"},
	} {
		t.Run(tt.err, func(t *testing.T) {
			r, err := ref.Parse(tt.host + "/a:b")
			if err != nil {
				t.Fatal(err)
			}
			_, err = Pull(t.Context(), Options{Ref: r, Layout: t.TempDir(), Pause: time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), tt.host) || fault.Hint(err) == "" {
				t.Errorf("Pull = %v; want an error with %q and a hint", err, tt.err)
			}
		})
	}
}

func TestExplainTLS(t *testing.T) {
	err := explain(&url.Error{Op: "Get", URL: "https://r.example/v2/", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}},
		Options{Ref: ref.Ref{Registry: "r.example"}})
	if !strings.HasPrefix(err.Error(), "registry r.example cannot be trusted: x509: ") || fault.Hint(err) == "" {
		t.Errorf("explain = %v; want an error about trust and a hint", err)
	}
}

// TestHungUp checks what is said of a registry that accepts connections and ends them.
func TestHungUp(t *testing.T) {
	for name, hangUp := range map[string]func(net.Conn){
		"at once": func(net.Conn) {},
		"after the request": func(c net.Conn) {
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil { // none speaks TLS here
				r.Body.Close()
			} else {
				_, _ = c.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\nno TLS here"))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					hangUp(c)
					c.Close()
				}
			}()
			_, err = Pull(t.Context(), Options{Ref: ref.Ref{Registry: l.Addr().String(), Repository: "x", Tag: "1"}, Layout: t.TempDir(), Pause: time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), "registry "+l.Addr().String()+" ends connections without an answer") || fault.Hint(err) == "" {
				t.Errorf("Pull = %v, hint %q", err, fault.Hint(err))
			}
		})
	}
}

func TestGuard(t *testing.T) {
	g := &guard{inner: answer{}, registries: config.Registries{{Name: "a.example", Insecure: true}, {Name: "b.example:5000", Insecure: true}}}
	for _, tt := range []struct {
		url  string
		pass bool
	}{
		{"https://any.example/", true},
		{"http://localhost:5000/", true},
		{"http://127.0.0.2:5000/", true},
		{"http://[::1]:5000/", true},
		{"http://a.example/", true},
		{"http://a.example:80/", true},
		{"http://b.example:5000/", true},

		{"http://b.example:5001/", false},
		{"http://10.0.0.1:5000/", false},
		{"http://localhost.example/", false},
	} {
		req, err := http.NewRequest(http.MethodGet, tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := g.RoundTrip(req)
		if tt.pass != (err == nil) {
			t.Errorf("RoundTrip(%s) = %v; want it to pass: %v", tt.url, err, tt.pass)
		}
		if resp != nil {
			resp.Body.Close()
		}
	}
}

type answer struct{}

func (answer) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{Body: http.NoBody}, nil
}

// TestIndexIsAnOCILayout checks what other programs read.
func TestIndexIsAnOCILayout(t *testing.T) {
	s := newServer(t)
	s.push(t, "1", 1, 100)
	o := s.options(t, "1")
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(o.Layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations[layout.RefName] != o.Ref.String() || index.Manifests[0].Size == 0 || !index.Manifests[0].MediaType.IsImage() {
		t.Errorf("index.json is %s", text)
	}
}
