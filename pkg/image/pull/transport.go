// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// transport returns the way to a place: TLS as the site wants it, and retries.
func (o Options) transport(pl *place) (http.RoundTripper, error) {
	trusted, err := certificates(pl.site)
	if err != nil {
		return nil, err
	}
	var rt http.RoundTripper = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: trusted},
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   pl.site.Parallel,
		DisableCompression:    true, // a digest is of the bytes as they are
	}
	tries := maxTries
	if !pl.last {
		tries = mirrorTries
	}
	rt = &guard{inner: rt, registries: o.Registries}
	rt = &impatient{inner: rt, after: cmp.Or(o.Stall, stallAfter)}
	rt = &retry{inner: rt, pause: cmp.Or(o.Pause, defaultPause), tries: tries}
	return transport.NewUserAgent(rt, "brolga/"+config.Version), nil
}

// certificateError is about the file that the site names.
type certificateError struct{ error }

func (e certificateError) Unwrap() error { return e.error }

// certificates returns the authorities that may vouch for a registry; nil is
// those of the system.
func certificates(site config.Registry) (*x509.CertPool, error) {
	if site.CA == "" {
		return nil, nil
	}
	text, err := os.ReadFile(site.CA)
	if err != nil {
		return nil, certificateError{fault.WithHint(fmt.Errorf("read the certificates for registry %s: %w", site.Name, err), "tell the administrator of this cluster")}
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, certificateError{fmt.Errorf("read the certificates of this machine: %w", err)}
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, certificateError{fault.WithHint(fmt.Errorf("read the certificates for registry %s: %s has none in PEM form", site.Name, site.CA), "tell the administrator of this cluster")}
	}
	return pool, nil
}

// errPlain means that a connection without TLS was about to be made.
var errPlain = errors.New("refused to connect without TLS")

// guard lets plain HTTP through only to loopback addresses and to registries that
// the site marks insecure: the client library would try it for all private
// addresses, and a registry could redirect to it. It lets nothing through to
// those that the site blocks.
type guard struct {
	inner      http.RoundTripper
	registries config.Registries
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	site := g.registries.For(req.URL.Host)
	if err := site.Refusal(); err != nil {
		return nil, err
	}
	if req.URL.Scheme == "https" || isLoopback(req.URL.Hostname()) || site.Insecure {
		return g.inner.RoundTrip(req)
	}
	return nil, fmt.Errorf("%w to %s", errPlain, req.URL.Host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
