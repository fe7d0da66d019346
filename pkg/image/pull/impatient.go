// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	// stallAfter is how long a response may go with less than a trickle.
	stallAfter = time.Minute
	// trickle is how many bytes are worth waiting for.
	trickle = 64 << 10
)

var errStalled = errors.New("the registry stopped sending")

// impatient ends responses whose content does not come. The transport below it
// has limits for all that happens before.
type impatient struct {
	inner http.RoundTripper
	after time.Duration
}

func (t *impatient) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.inner.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	alarm := time.AfterFunc(t.after, func() { cancel(errStalled) })
	resp.Body = &watched{body: resp.Body, ctx: ctx, cancel: cancel, alarm: alarm, after: t.after}
	return resp, nil
}

// watched is content that puts an alarm off whenever a trickle of it has been
// read.
type watched struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	alarm  *time.Timer
	after  time.Duration
	got    int
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.body.Read(b)
	if w.got += n; w.got >= trickle {
		w.alarm.Reset(w.after)
		w.got = 0
	}
	if err != nil && context.Cause(w.ctx) == errStalled {
		err = errStalled
	}
	return n, err
}

func (w *watched) Close() error {
	w.alarm.Stop()
	defer w.cancel(nil)
	return w.body.Close()
}
