// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"encoding/json"
	"io"
	"time"
)

// event is one line of progress for programs. docs/images.md says what its
// members mean with each event.
type event struct {
	Event  string `json:"event"`
	Digest string `json:"digest,omitempty"`
	Layers *int   `json:"layers,omitempty"`
	Bytes  *int64 `json:"bytes,omitempty"`
	Text   string `json:"text,omitempty"`
}

// jsonLines writes progress for programs, one object a line.
type jsonLines struct {
	enc  *json.Encoder
	now  func() time.Time
	last time.Time
}

func newJSONLines(w io.Writer, now func() time.Time) *jsonLines {
	return &jsonLines{enc: json.NewEncoder(w), now: now}
}

// write ignores errors, as all displays do: a pull is not about them.
func (j *jsonLines) write(e event) { _ = j.enc.Encode(e) }

func (j *jsonLines) begin(s *state) {
	layers, bytes := len(s.layers), s.total
	j.write(event{Event: "begin", Layers: &layers, Bytes: &bytes})
}

func (j *jsonLines) changed(s *state) {
	if j.now().Sub(j.last) < redrawAfter {
		return
	}
	j.last = j.now()
	layers, bytes := s.finished, s.got
	j.write(event{Event: "progress", Layers: &layers, Bytes: &bytes})
}

func (j *jsonLines) finished(s *state, t *transfer) {
	layers, bytes := s.finished, t.size
	j.write(event{Event: "layer", Digest: t.digest, Layers: &layers, Bytes: &bytes})
}

func (j *jsonLines) say(text string) { j.write(event{Event: "message", Text: text}) }

func (j *jsonLines) end(s *state) {
	layers, bytes := s.finished, s.got
	j.write(event{Event: "end", Layers: &layers, Bytes: &bytes})
}
