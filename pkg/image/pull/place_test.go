// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// behind returns the options to pull from s through mirrors.
func (s *server) behind(t *testing.T, mirrors ...string) Options {
	o := s.options(t, "1")
	o.Registries = config.Registries{{Name: s.host, Mirrors: mirrors}}
	return o
}

// mirrorOf makes a mirror that has what s has below /copy.
func mirrorOf(t *testing.T, s *server) *server {
	m := &server{registry: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = strings.Replace(r.URL.Path, "/v2/copy/", "/v2/", 1)
		s.registry.ServeHTTP(w, r)
	})}
	web := httptest.NewServer(m)
	t.Cleanup(web.Close)
	m.host = strings.TrimPrefix(web.URL, "http://")
	return m
}

func TestPullFromMirrors(t *testing.T) {
	blobs := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }
	all := func(r *http.Request) bool { return r.URL.Path != "/v2/" }
	fails := func(when func(*http.Request) bool, how http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if when(r) {
				how(w, r)
			}
			return when(r)
		}
	}
	for _, tt := range []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		used  bool // whether the registry itself is
	}{
		{"whole", nil, false},
		{"empty", fails(all, status(404)), true},
		{"denied", fails(all, status(401)), true},
		{"broken", fails(all, status(500)), true},
		{"hung up", fails(all, hangUp), true},
		{"without blobs", fails(blobs, status(404)), true},
		{"with wrong blobs", fails(blobs, wrong), true},
		{"with half a blob", fails(blobs, cut), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.push(t, "1", 2, 900)
			m := mirrorOf(t, s)
			m.reset(tt.fault)
			s.reset(nil)
			o := s.behind(t, "127.0.0.1:1", m.host+"/copy")
			if _, err := Pull(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			check(t, o)
			if m.count("") == 0 || (s.count("") > 0) != tt.used {
				t.Errorf("requests of the mirror %q, of the registry %q; want it used: %v", m.requests, s.requests, tt.used)
			}
		})
	}
}

func TestPullNamesMirrorsThatFailed(t *testing.T) {
	s := newServer(t)
	o := s.behind(t, "127.0.0.1:1")
	_, err := Pull(t.Context(), o)
	if err == nil || !strings.HasSuffix(err.Error(), "the registry has no such image or tag; mirror 127.0.0.1:1: registry 127.0.0.1:1 cannot be reached: connect: connection refused") {
		t.Errorf("Pull = %v; want both told, the registry first", err)
	}
}

func TestPullRefusesBlockedRegistries(t *testing.T) {
	s := newServer(t)
	s.push(t, "1", 1, 100)
	o := s.options(t, "1")
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s.reset(nil)
	o.Registries = config.Registries{{Name: s.host, Blocked: "use r.example"}}
	_, err := Pull(t.Context(), o)
	if err == nil || !strings.HasSuffix(err.Error(), "registry "+s.host+" is blocked on this cluster") || fault.Hint(err) != "use r.example" || len(s.requests) > 0 {
		t.Errorf("Pull = %v, hint %q, requests %q; want a refusal without requests", err, fault.Hint(err), s.requests)
	}
	o.IfMissing = true // the cache has it
	if _, err := Pull(t.Context(), o); err == nil {
		t.Error("Pull of a cached image = nil; want a refusal")
	}
	o.IfMissing = false
	// Nor does it get there by a redirect.
	to := newServer(t)
	to.reset(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "http://"+s.host+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	o.Ref.Registry = to.host
	if _, err := Pull(t.Context(), o); err == nil || len(s.requests) > 0 {
		t.Errorf("Pull = %v, requests %q; want no redirect followed", err, s.requests)
	}
}

// TestPullTrustsTheSitesAuthorities uses a server whose certificate no one else
// vouches for.
func TestPullTrustsTheSitesAuthorities(t *testing.T) {
	s := newServer(t)
	s.push(t, "1", 1, 100)
	web := httptest.NewUnstartedServer(s)
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	t.Cleanup(web.Close)
	ca := certificateOf(t, web)
	host := strings.TrimPrefix(web.URL, "https://")
	s.reset(nil)
	o := s.options(t, "1")
	o.Ref.Registry = host
	o.Registries = config.Registries{{Name: host, CA: ca}}
	if _, err := Pull(t.Context(), o); err != nil {
		t.Error(err)
	}
	check(t, o)
	o.Layout = t.TempDir()
	for _, tt := range []struct{ name, ca, err string }{
		{"unknown", "", "cannot be trusted: x509: certificate signed by unknown authority"},
		{"missing", "/no/such.pem", "read the certificates for registry " + host + ": open /no/such.pem: no such file or directory"},
		{"nonsense", os.Args[0], "has none in PEM form"},
	} {
		o.Registries[0].CA = tt.ca
		if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), tt.err) || fault.Hint(err) == "" {
			t.Errorf("%s: Pull = %v; want an error with %q and a hint", tt.name, err, tt.err)
		}
	}
}

// certificateOf returns a file with the server's certificate.
func certificateOf(t *testing.T, web *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPullLimitsTransfers(t *testing.T) {
	s := newServer(t)
	img := s.push(t, "1", 6, 100)
	conf, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	m := mirrorOf(t, s) // it would take more, but has no layers
	m.registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		s.registry.ServeHTTP(w, r)
	})
	for _, limit := range []int{1, 3} {
		var mu sync.Mutex
		now, all := 0, make(chan struct{})
		s.reset(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") || strings.Contains(r.URL.Path, conf.String()) {
				return false
			}
			mu.Lock()
			now++
			there := all
			switch {
			case now == limit: // let these go when one more has had the time to come
				time.AfterFunc(20*time.Millisecond, func() {
					mu.Lock()
					defer mu.Unlock()
					close(all)
					now, all = 0, make(chan struct{})
				})
			case now > limit:
				t.Errorf("%d transfers at once; want %d", now, limit)
			}
			mu.Unlock()
			<-there
			return false
		})
		o := s.options(t, "1")
		o.Registries = config.Registries{{Name: s.host, Parallel: limit, Mirrors: []string{m.host}}, {Name: m.host, Parallel: 6}}
		if _, err := Pull(t.Context(), o); err != nil {
			t.Errorf("Pull = %v", err)
		}
	}
}

// wantPassword lets nobody in but alice, with Basic authentication or, if token
// is set, with a token that it gives out for that.
func (s *server) wantPassword(token string) {
	s.reset(func(w http.ResponseWriter, r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		right := user == "alice" && password == "wonderland"
		switch {
		case token != "" && r.URL.Path == "/token" && right:
			fmt.Fprintf(w, `{"token":%q}`, token)
			return true
		case token != "" && r.Header.Get("Authorization") == "Bearer "+token, token == "" && right:
			return false
		case token != "" && r.URL.Path != "/token":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, s.host))
		default:
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		}
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
}

// finder returns one whose only file has the entries KEY, USER:PASSWORD.
func finder(t *testing.T, text string) *credential.Finder {
	t.Helper()
	path := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &credential.Finder{Env: []string{"REGISTRY_AUTH_FILE=" + path}}
}

func auth(host, login string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(login)))
}

func TestPullLogsIn(t *testing.T) {
	const denied = "the registry wants other credentials, or has no such image"
	for _, token := range []string{"", "opaque"} {
		s := newServer(t)
		s.push(t, "1", 1, 100)
		s.wantPassword(token)
		for _, tt := range []struct {
			name, file, user, err, hint string // empty err means success
		}{
			{name: "right", file: auth(s.host, "alice:wonderland")},
			{name: "named", file: auth(s.host, "alice:wonderland"), user: "alice"},

			{name: "wrong", file: auth(s.host, "alice:queen"), err: denied, hint: "brolga login " + s.host},
			{name: "none", file: `{}`, err: denied, hint: "brolga login " + s.host},
			{name: "of another registry", file: auth("r.example", "alice:wonderland"), err: denied, hint: "brolga login " + s.host},
			{name: "of another user", file: auth(s.host, "alice:wonderland"), user: "bob", err: `no credentials of user "bob"`, hint: "brolga login --username bob " + s.host},
			{name: "helper is missing", file: `{"credsStore":"x"}`, err: denied, hint: "credential helper docker-credential-x"},
		} {
			t.Run(token+tt.name, func(t *testing.T) {
				o := s.options(t, "1")
				o.Credentials, o.Ref.User = finder(t, tt.file), tt.user
				_, err := Pull(t.Context(), o)
				switch {
				case tt.err == "" && err != nil:
					t.Errorf("Pull = %v", err)
				case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(fault.Hint(err), tt.hint)):
					t.Errorf("Pull = %v, hint %q; want %q, %q", err, fault.Hint(err), tt.err, tt.hint)
				case tt.err != "" && (strings.Contains(err.Error()+fault.Hint(err), "queen") || strings.Contains(err.Error(), "wonderland")):
					t.Errorf("Pull = %v; want no secret in it", err)
				}
			})
		}
	}
}

// TestPullNeedsNoHelperForPublicImages is for configurations that come from
// somebody's laptop.
func TestPullNeedsNoHelperForPublicImages(t *testing.T) {
	s := newServer(t)
	s.push(t, "1", 1, 100)
	o := s.options(t, "1")
	o.Credentials = finder(t, `{"credsStore":"desktop"}`)
	if _, err := Pull(t.Context(), o); err != nil {
		t.Error(err)
	}
}

func TestPullKeepsCredentialsFromOthers(t *testing.T) {
	s, storage := newServer(t), newServer(t)
	s.push(t, "1", 1, 100)
	var leaked []string
	storage.registry = s.registry
	storage.reset(func(_ http.ResponseWriter, r *http.Request) bool {
		if a := r.Header.Get("Authorization"); a != "" {
			leaked = append(leaked, r.URL.Path)
		}
		return false
	})
	s.wantPassword("")
	enter := s.fault
	s.reset(func(w http.ResponseWriter, r *http.Request) bool {
		if enter(w, r) || !strings.Contains(r.URL.Path, "/blobs/") {
			return r.Header.Get("Authorization") == ""
		}
		http.Redirect(w, r, "http://"+storage.host+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	m := mirrorOf(t, s)
	m.reset(func(w http.ResponseWriter, r *http.Request) bool {
		if a := r.Header.Get("Authorization"); a != "" {
			leaked = append(leaked, "mirror "+r.URL.Path)
		}
		if r.URL.Path == "/v2/" {
			return true
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	o := s.behind(t, m.host)
	o.Credentials = finder(t, auth(s.host, "alice:wonderland"))
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	check(t, o)
	if len(storage.requests) == 0 || len(m.requests) == 0 || len(leaked) > 0 {
		t.Errorf("requests of storage %q, of the mirror %q; with the password %q", storage.requests, m.requests, leaked)
	}
}

func TestLogin(t *testing.T) {
	for _, token := range []string{"", "opaque"} {
		s := newServer(t)
		s.wantPassword(token)
		o := s.options(t, "1")
		if err := Login(t.Context(), o, credential.Credential{User: "alice", Password: "wonderland"}); err != nil {
			t.Error(err)
		}
		err := Login(t.Context(), o, credential.Credential{User: "alice", Password: "queen"})
		if err == nil || err.Error() != "log in to "+s.host+": the registry does not accept this user and password" {
			t.Errorf("Login with a wrong password = %v", err)
		}
	}
	o := newServer(t).options(t, "1")
	o.Ref.Registry = "127.0.0.1:1"
	if err := Login(t.Context(), o, credential.Credential{User: "a", Password: "b"}); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("Login without a registry = %v", err)
	}
}

func TestPullForAnotherPlatform(t *testing.T) {
	s := newServer(t)
	s.push(t, "1", 1, 100)
	o := s.options(t, "1")
	o.Platform = layout.Platform{OS: "linux", Architecture: "s390x"}
	want := "no image for this platform, linux/s390x; there is " + layout.Host().String()
	if _, err := Pull(t.Context(), o); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("Pull = %v; want %q", err, want)
	}
}

// trickleOut sends what was asked for byte by byte, and never all of it.
func trickleOut(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "10000")
	var start int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); err == nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-9999/10000", start))
		w.WriteHeader(http.StatusPartialContent)
	}
	for r.Context().Err() == nil {
		_, _ = w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

func TestPullGivesUpOnATrickle(t *testing.T) {
	for _, what := range []string{"/manifests/", "/blobs/", "/token"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.push(t, "1", 1, 100)
			s.wantPassword("opaque")
			enter := s.fault
			s.reset(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, what) {
					return enter(w, r)
				}
				trickleOut(w, r)
				return true
			})
			o := s.options(t, "1")
			o.Credentials, o.Stall = finder(t, auth(s.host, "alice:wonderland")), 20*time.Millisecond
			if _, err := Pull(t.Context(), o); err == nil || !strings.HasSuffix(err.Error(), "the registry stopped sending") {
				t.Errorf("Pull = %v; want it given up", err)
			}
		})
	}
}

// TestPullGivesUpWithHTTP2 is for the other implementation in package http.
func TestPullGivesUpWithHTTP2(t *testing.T) {
	s := newServer(t)
	s.push(t, "1", 1, 100)
	web := httptest.NewUnstartedServer(s)
	web.EnableHTTP2 = true
	web.StartTLS()
	t.Cleanup(web.Close)
	s.reset(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		if r.ProtoMajor != 2 {
			t.Errorf("a request with %s", r.Proto)
		}
		trickleOut(w, r)
		return true
	})
	o := s.options(t, "1")
	o.Stall, o.Ref.Registry = 20*time.Millisecond, strings.TrimPrefix(web.URL, "https://")
	o.Registries = config.Registries{{Name: o.Ref.Registry, CA: certificateOf(t, web)}}
	if _, err := Pull(t.Context(), o); err == nil || !strings.HasSuffix(err.Error(), "the registry stopped sending") {
		t.Errorf("Pull = %v; want it given up", err)
	}
}
