// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// descriptors are those of a manifest or index. There may be no more than maxListed,
// however short a text can say so: root reads them for users.
type descriptors []Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (d *descriptors) UnmarshalJSON(text []byte) error {
	if bytes.Equal(text, []byte("null")) {
		return nil
	}
	*d = descriptors{}
	return eachOf(json.NewDecoder(bytes.NewReader(text)), func(one Descriptor) error {
		if len(*d) == maxListed {
			return fmt.Errorf("a list of more than %d", maxListed)
		}
		*d = append(*d, one)
		return nil
	})
}

// eachManifest calls f for the manifests of an index, until that is an error.
func eachManifest(index io.Reader, f func(Descriptor) error) error {
	dec := json.NewDecoder(index)
	if err := expect(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		if name, _ := key.(string); strings.EqualFold(name, "manifests") {
			return eachOf(dec, f)
		}
		var other json.RawMessage
		if err := dec.Decode(&other); err != nil {
			return err
		}
	}
	return expect(dec, '}')
}

// eachOf calls f for the elements of the list that comes next.
func eachOf(dec *json.Decoder, f func(Descriptor) error) error {
	if err := expect(dec, '['); err != nil {
		return err
	}
	for dec.More() {
		var d Descriptor
		if err := dec.Decode(&d); err != nil {
			return err
		}
		if err := f(d); err != nil {
			return err
		}
	}
	return expect(dec, ']')
}

func expect(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v in place of %v", got, want)
	}
	return err
}
