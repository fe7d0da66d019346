// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// registry is one repository of a registry, logged in to.
type registry struct {
	client *http.Client
	base   string // URL of the repository in the registry's API
	pause  time.Duration
	slots  chan struct{}           // of which a transfer takes one
	helper *credential.HelperError // why there may be no credential, or nil
}

// connect finds credentials and logs in. It asks the registry what it wants,
// which is one request, and two where it wants a token.
func connect(ctx context.Context, o Options, pl *place) (*registry, error) {
	repo, err := name.NewRepository(pl.host+"/"+pl.repository, nameOptions(pl.site)...)
	if err != nil {
		return nil, err
	}
	auth, err := pl.login(ctx, o)
	var helper *credential.HelperError
	if err != nil && !errors.As(err, &helper) {
		return nil, err
	}
	base, err := o.transport(pl)
	if err != nil {
		return nil, err
	}
	rt, err := transport.NewWithContext(ctx, repo.Registry, auth, base, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, missing(err, helper)
	}
	return &registry{
		client: &http.Client{Transport: rt},
		helper: helper,
		// The transport changes the scheme to what the registry answered to.
		base:  fmt.Sprintf("%s://%s/v2/%s/", repo.Scheme(), repo.RegistryStr(), repo.RepositoryStr()),
		pause: cmp.Or(o.Pause, defaultPause),
		slots: make(chan struct{}, pl.site.Parallel),
	}, nil
}

func nameOptions(site config.Registry) []name.Option {
	if site.Insecure {
		return []name.Option{name.Insecure}
	}
	return nil
}

// credential finds what to log in to a place with.
func (o Options) credential(ctx context.Context, pl *place) (authn.Authenticator, error) {
	if o.Credentials == nil {
		return authn.Anonymous, nil
	}
	c, err := o.Credentials.Find(ctx, pl.host, pl.repository, pl.user)
	return authenticator(c), err
}

func authenticator(c credential.Credential) authn.Authenticator {
	if c == (credential.Credential{}) {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: c.User, Password: string(c.Password),
		IdentityToken: string(c.IdentityToken), RegistryToken: string(c.RegistryToken),
	})
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

// manifest fetches an index or manifest by tag or digest. What arrives in part, or
// damaged, is asked for again.
func (r *registry) manifest(ctx context.Context, reference string) ([]byte, error) {
	for try := 1; ; try++ {
		resp, err := r.do(ctx, http.MethodGet, "manifests/"+reference, acceptManifests)
		if err != nil {
			return nil, err
		}
		raw, err := readManifest(resp, reference)
		if err == nil || try == manifestTries || ctx.Err() != nil {
			return raw, err
		}
		if err := pause(ctx, jitter(r.pause, try)); err != nil {
			return nil, err
		}
	}
}

// readManifest returns the content of a response and closes it.
func readManifest(resp *http.Response, reference string) ([]byte, error) {
	raw, err := readAll(resp)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", reference, err)
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

// referrers fetches the index of what refers to a digest.
func (r *registry) referrers(ctx context.Context, digest string) ([]byte, error) {
	resp, err := r.do(ctx, http.MethodGet, "referrers/"+digest, http.Header{"Accept": {layout.TypeIndex}})
	if err != nil {
		return nil, err
	}
	return readAll(resp)
}

// readAll returns what is small enough for a manifest.
func readAll(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, layout.MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > layout.MaxManifest {
		return nil, fmt.Errorf("the manifest is longer than %d bytes", layout.MaxManifest)
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
		return nil, missing(err, r.helper)
	}
	return resp, nil
}

// helperMissed is a denied request that a credential helper could have helped.
type helperMissed struct {
	error
	helper *credential.HelperError
}

func (e helperMissed) Unwrap() error { return e.error }

func missing(err error, helper *credential.HelperError) error {
	if helper == nil {
		return err
	}
	return helperMissed{err, helper}
}
