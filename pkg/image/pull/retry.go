// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxTries      = 6
	mirrorTries   = 2 // there is another place to try
	manifestTries = 3 // when it arrives damaged
	maxDialTries  = 2 // a host that refuses a connection is rarely back in seconds
	maxPause      = 30 * time.Second
	maxAfter      = 2 * time.Minute // that a registry may ask us to wait
	defaultPause  = time.Second
)

// retry sends a request again when the network or the registry had a passing
// problem. It does not see what happens to the body of a response.
type retry struct {
	inner http.RoundTripper
	pause time.Duration
	tries int
}

func (r *retry) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, err := r.inner.RoundTrip(req)
		again, after := false, time.Duration(0)
		if err != nil {
			again = isPassing(err) && (try < min(maxDialTries, r.tries-1) || !isDial(err))
		} else {
			again, after = isBusy(resp)
		}
		if !again || try == r.tries || (req.Body != nil && req.GetBody == nil) || req.Context().Err() != nil {
			return resp, err
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // to use the connection again
			resp.Body.Close()
		}
		if err := pause(req.Context(), max(after, jitter(r.pause, try))); err != nil {
			return nil, err
		}
		if req.Body != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// isBusy says whether a response asks us to come again, and when. A registry
// that wants us to wait for very long is as good as down.
func isBusy(resp *http.Response) (bool, time.Duration) {
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return false, 0
	}
	text := resp.Header.Get("Retry-After")
	after := time.Duration(0)
	if seconds, err := strconv.Atoi(text); err == nil {
		after = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		after = time.Until(at)
	}
	return after <= maxAfter, after
}

// isPassing says whether an error of the network may be gone the next time.
func isPassing(err error) bool {
	var (
		dns *net.DNSError
		op  *net.OpError
		rec tls.RecordHeaderError
		net net.Error
	)
	switch {
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.As(err, &rec):
		return false
	case errors.As(err, &op):
		return op.Op != "remote error" && op.Op != "local error" // of TLS
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errStalled):
		return true
	case errors.As(err, &net) && net.Timeout():
		return true
	}
	return strings.Contains(err.Error(), "stream error") || strings.Contains(err.Error(), "http2: ")
}

// isDial says whether there was no connection, to a registry or to the proxy.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
}

// jitter returns a random time around first, doubled for each try before.
func jitter(first time.Duration, try int) time.Duration {
	d := min(first<<(try-1), maxPause)
	return d/2 + rand.N(d)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
