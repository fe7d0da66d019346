// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// explain turns an error of a pull into what the reader needs to know.
func explain(err error, o Options) error {
	var all placesError
	if !errors.As(err, &all) {
		places := placesOf(o)
		all = placesError{{places[len(places)-1], err}}
	}
	last := all[len(all)-1]
	err = explainOne(last.error, last.place, o)
	for _, e := range all[:len(all)-1] {
		err = fmt.Errorf("%w; mirror %s: %s", err, e.place.host, fault.Line(explainOne(e.error, e.place, o)))
	}
	return err
}

func explainOne(err error, pl *place, o Options) error {
	host := pl.host
	var (
		status *transport.Error
		dns    *net.DNSError
		op     *net.OpError
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		web    *url.Error
	)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.WithHint(fmt.Errorf("no space left for the image cache %s", o.Layout), `"brolga images" and "brolga rmi" show and remove what is in it`)
	case errors.As(err, &cert): // before status: a loopback address was tried without TLS too
		return explainTLS(host, cert.Err)
	case errors.As(err, &status):
		return explainStatus(err, status, host)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return fault.WithHint(fmt.Errorf("registry %s cannot be reached through the proxy: %w", host, op.Err), "check https_proxy, http_proxy and no_proxy")
	case errors.As(err, &dns):
		return fault.WithHint(fmt.Errorf("registry %s: no such host", host), "check the name of the registry, and whether this node can reach the network")
	case errors.As(err, &op) && op.Op == "dial":
		return fault.WithHint(fmt.Errorf("registry %s cannot be reached: %w", host, op.Err), "check whether this node can reach the network; https_proxy is obeyed")
	case errors.Is(err, errPlain):
		return fault.WithHint(fmt.Errorf("registry %s does not speak TLS", host), "a site allows this with insecure = true for the registry in its configuration")
	case isHungUp(err): // before record: it did so without TLS, which it does not speak
		return fault.WithHint(fmt.Errorf("registry %s ends connections without an answer", host),
			"try again later; if it stays so, tell the people who run the registry, or the proxy in front of it")
	case errors.As(err, &record):
		return explainTLS(host, record)
	case errors.As(err, &web): // without the long address
		return fmt.Errorf("registry %s: %w", host, web.Err)
	}
	return err
}

// isHungUp reports whether a connection ended before the answer did.
func isHungUp(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func explainTLS(host string, err error) error {
	var unknown x509.UnknownAuthorityError
	err2 := fmt.Errorf("registry %s cannot be trusted: %w", host, err)
	if errors.As(err, &unknown) {
		return fault.WithHint(err2, "the certificate authority of the registry is not known to this node; a site adds it with ca for the registry in its configuration")
	}
	return err2
}

func explainStatus(err error, e *transport.Error, host string) error {
	login := fmt.Sprintf(`log in with "brolga login %s"; docker login and podman login count too`, host)
	var missed helperMissed
	if errors.As(err, &missed) {
		login = fault.Line(missed.helper)
	}
	switch e.StatusCode {
	case http.StatusNotFound:
		return errors.New("the registry has no such image or tag")
	case http.StatusUnauthorized:
		return fault.WithHint(errors.New("the registry wants other credentials, or has no such image"), login)
	case http.StatusForbidden:
		return fault.WithHint(errors.New("the registry denies access"), login)
	case http.StatusTooManyRequests:
		return fault.WithHint(fmt.Errorf("registry %s limits the number of requests, and the limit is reached", host),
			"try again later; registries allow more to users that are logged in")
	}
	text := http.StatusText(e.StatusCode)
	if len(e.Errors) > 0 {
		text = e.Errors[0].String()
	}
	return fmt.Errorf("registry %s: status %d: %s", host, e.StatusCode, text)
}
