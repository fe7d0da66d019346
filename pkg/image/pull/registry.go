// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// registry is one repository of a registry, logged in to.
type registry struct {
	client *http.Client
	base   string // URL of the repository in the registry's API
	pause  time.Duration
}

// connect finds credentials and logs in. It asks the registry what it wants,
// which is one request, and two where it wants a token.
func connect(ctx context.Context, o Options) (*registry, error) {
	var opts []name.Option
	if isListed(o.Insecure, o.Ref.Registry) {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(o.Ref.Registry+"/"+o.Ref.Repository, opts...)
	if err != nil {
		return nil, err
	}
	keychain := o.Keychain
	if keychain == nil {
		keychain = authn.DefaultKeychain
	}
	auth, err := authn.Resolve(ctx, keychain, repo)
	if err != nil {
		return nil, fmt.Errorf("find credentials: %w", err)
	}
	pause := o.Pause
	if pause == 0 {
		pause = time.Second
	}
	var base http.RoundTripper = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   parallel,
		DisableCompression:    true, // a digest is of the bytes as they are
	}
	base = &guard{inner: base, insecure: o.Insecure}
	base = &retry{inner: base, pause: pause}
	base = transport.NewUserAgent(base, "brolga/"+config.Version)
	rt, err := transport.NewWithContext(ctx, repo.Registry, auth, base, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	return &registry{
		client: &http.Client{Transport: rt},
		// The transport changes the scheme to what the registry answered to.
		base:  fmt.Sprintf("%s://%s/v2/%s/", repo.Scheme(), repo.RegistryStr(), repo.RepositoryStr()),
		pause: pause,
	}, nil
}

// digest returns the digest of a tag, or "" when the registry does not say.
func (r *registry) digest(ctx context.Context, tag string) (string, error) {
	resp, err := r.do(ctx, http.MethodHead, "manifests/"+tag, acceptManifests)
	var te *transport.Error
	if errors.As(err, &te) && te.StatusCode == http.StatusMethodNotAllowed {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	return resp.Header.Get("Docker-Content-Digest"), nil
}

// manifest fetches an index or manifest by tag or digest.
func (r *registry) manifest(ctx context.Context, reference string) ([]byte, error) {
	resp, err := r.do(ctx, http.MethodGet, "manifests/"+reference, acceptManifests)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, layout.MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > layout.MaxManifest {
		return nil, fmt.Errorf("the manifest is longer than %d bytes", layout.MaxManifest)
	}
	want := reference
	if !ref.IsDigest(want) {
		want = resp.Header.Get("Docker-Content-Digest")
	}
	if got := layout.Digest(raw); ref.IsDigest(want) && got != want {
		return nil, fmt.Errorf("manifest %s is corrupt: the registry sent content with digest %s", want, got)
	}
	return raw, nil
}

// acceptManifests lists what we can read. A registry may convert to it.
var acceptManifests = http.Header{"Accept": {strings.Join([]string{
	layout.TypeIndex, layout.TypeManifest, layout.TypeDockerIndex, layout.TypeDockerManifest,
}, ", ")}}

// do sends a request and returns the response if it is a success.
func (r *registry) do(ctx context.Context, method, path string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// errPlain means that a connection without TLS was about to be made.
var errPlain = errors.New("refused to connect without TLS")

// guard lets plain HTTP through only to loopback addresses and to listed
// registries: the client library would try it for all private addresses, and a
// registry could redirect to it.
type guard struct {
	inner    http.RoundTripper
	insecure []string
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" || isLoopback(req.URL.Hostname()) || isListed(g.insecure, req.URL.Host) {
		return g.inner.RoundTrip(req)
	}
	return nil, fmt.Errorf("%w to %s", errPlain, req.URL.Host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// isListed says whether host, HOST or HOST:PORT, is in list, where HOST in the
// list stands for all ports.
func isListed(list []string, host string) bool {
	if slices.Contains(list, host) {
		return true
	}
	bare, _, err := net.SplitHostPort(host)
	return err == nil && slices.Contains(list, bare)
}
