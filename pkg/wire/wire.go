// SPDX-License-Identifier: Apache-2.0

// Package wire reads and writes the records that the C shim, the library and
// the helper exchange: NUL-terminated key=value strings, like
// /proc/PID/environ. C needs no parser for it, and a person reads it with
//
//	tr '\0' '\n'
//
// spank/PROTOCOL.md lists the records of each message. Order is kept and keys
// may repeat.
package wire

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/budget"
)

// Record is one key=value string. A key has no "=" and neither has NUL.
type Record struct{ Key, Value string }

// Append adds one record to a message. It returns an error when the record
// cannot be written without changing its meaning.
func Append(message []byte, key, value string) ([]byte, error) {
	if key == "" || strings.ContainsAny(key, "=\x00") {
		return message, fmt.Errorf("internal error: record key %q", key)
	}
	if strings.IndexByte(value, 0) >= 0 {
		return message, fmt.Errorf("value of %s contains a NUL byte: %q", key, value)
	}
	message = append(message, key...)
	message = append(message, '=')
	message = append(message, value...)
	return append(message, 0), nil
}

// Marshal returns the message that holds the given records.
func Marshal(records []Record) ([]byte, error) {
	var message []byte
	for _, r := range records {
		var err error
		if message, err = Append(message, r.Key, r.Value); err != nil {
			return nil, err
		}
	}
	return message, nil
}

// MaxRecords is how many records a message may have: each takes more memory than the
// shortest text that stands for one.
const MaxRecords = 1 << 16

// Unmarshal returns the records of a message. A message that is cut off, has a record
// without "=", or has more than [MaxRecords] is an error.
func Unmarshal(message []byte) ([]Record, error) {
	count := bytes.Count(message, []byte{0})
	if count > MaxRecords {
		return nil, fmt.Errorf("%d records: the limit is %d", count, MaxRecords)
	}
	records := make([]Record, 0, count)
	for all := string(message); all != ""; { // which the records share
		text, rest, ended := strings.Cut(all, "\x00")
		if !ended {
			return nil, fmt.Errorf("record %d is cut off", len(records)+1)
		}
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("record %d has no key: %q", len(records)+1, budget.Shorten(text))
		}
		records = append(records, Record{key, value})
		all = rest
	}
	return records, nil
}
