// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/budget"
)

// descriptors are those of a manifest or index. There may be no more than maxListed,
// their annotations counted too, however short a text can say so: root reads them for
// users.
type descriptors []Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (d *descriptors) UnmarshalJSON(text []byte) error {
	if bytes.Equal(text, []byte("null")) {
		return nil
	}
	*d = descriptors{}
	listed := 0
	return eachOf(newStream(bytes.NewReader(text)), func(one Descriptor) error {
		if listed += 1 + len(one.Annotations); listed > maxListed {
			return fmt.Errorf("a list of more than %d descriptors and annotations", maxListed)
		}
		*d = append(*d, one)
		return nil
	})
}

// descriptor is a single one.
type descriptor Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (d *descriptor) UnmarshalJSON(text []byte) error {
	if len(text) > maxDescriptor {
		return fmt.Errorf("a descriptor is %w", budget.Large(maxDescriptor))
	}
	return json.Unmarshal(text, (*Descriptor)(d))
}

// stream is a document of which one value is in memory at a time.
type stream struct {
	*json.Decoder
	meter *budget.Meter
}

func newStream(r io.Reader) stream {
	meter := budget.NewMeter(r, "a descriptor is", maxDescriptor)
	return stream{json.NewDecoder(meter), meter}
}

// More reports whether there is another element. The next value may be as long as a
// descriptor.
func (s stream) More() bool {
	s.meter.Renew()
	return s.Decoder.More()
}

// eachManifest calls f for the manifests of an index, until that is an error.
func eachManifest(index io.Reader, f func(Descriptor) error) error {
	s := newStream(index)
	if err := expect(s, '{'); err != nil {
		return err
	}
	for s.More() {
		key, err := s.Token()
		if err != nil {
			return err
		}
		if name, _ := key.(string); strings.EqualFold(name, "manifests") {
			return eachOf(s, f)
		}
		var other json.RawMessage
		if err := s.Decode(&other); err != nil {
			return err
		}
	}
	return expect(s, '}')
}

// eachOf calls f for the elements of the list that comes next.
func eachOf(s stream, f func(Descriptor) error) error {
	if err := expect(s, '['); err != nil {
		return err
	}
	for s.More() {
		var d Descriptor
		if err := s.Decode(&d); err != nil {
			return err
		}
		if err := f(d); err != nil {
			return err
		}
	}
	return expect(s, ']')
}

func expect(s stream, want json.Delim) error {
	got, err := s.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v in place of %v", got, want)
	}
	return err
}
