// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// golden are the messages that the tests of the shim read as well.
const golden = "../../spank/test/testdata"

// TestUnmarshalGolden reads each NAME.records and compares it with
// NAME.expected: a line for each record, then "end" or "malformed".
func TestUnmarshalGolden(t *testing.T) {
	cases, err := filepath.Glob(golden + "/*.records")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".records"), func(t *testing.T) {
			message, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(strings.TrimSuffix(path, "records") + "expected")
			if err != nil {
				t.Fatal(err)
			}
			records, err := Unmarshal(message)
			if strings.HasSuffix(string(text), "malformed\n") {
				// C reads what comes before the mistake, Go nothing.
				if err == nil {
					t.Errorf("Unmarshal = %q; want an error", records)
				}
				return
			}
			if got := lines(records); err != nil || got != string(text) {
				t.Errorf("Unmarshal = %q, %v; want %q", got, err, text)
			}
			if again, err := Marshal(records); err != nil || !bytes.Equal(again, message) {
				t.Errorf("Marshal = %q, %v; want %q", again, err, message)
			}
		})
	}
}

// lines writes records as the golden files have them.
func lines(records []Record) string {
	var b strings.Builder
	for _, r := range records {
		for _, c := range []byte(r.Key + "=" + r.Value) {
			if c >= 0x20 && c < 0x7f && c != '\\' {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		}
		b.WriteByte('\n')
	}
	return b.String() + "end\n"
}

func TestUnmarshalErrors(t *testing.T) {
	for _, tt := range []struct{ in, err string }{
		{"a=b", "record 1 is cut off"},
		{"a=b\x00c", "record 2 is cut off"},
		{"a=b\x00novalue\x00", `record 2 has no key: "novalue"`},
		{"=b\x00", `record 1 has no key: "=b"`},
		{"\x00", `record 1 has no key: ""`},
		{strings.Repeat("a", 100) + "\x00", `record 1 has no key: "` + strings.Repeat("a", 64) + `..."`},
		{strings.Repeat("a=\x00", MaxRecords+1), "65537 records: the limit is 65536"},
	} {
		t.Run(tt.in[:min(len(tt.in), 20)], func(t *testing.T) {
			if got, err := Unmarshal([]byte(tt.in)); err == nil || err.Error() != tt.err {
				t.Errorf("Unmarshal(%.20q) = %d records, %v; want the error %q", tt.in, len(got), err, tt.err)
			}
		})
	}
}

func TestAppend(t *testing.T) {
	for _, tt := range []struct {
		key, value string
		want       string
		err        string
	}{
		{key: "k", value: "v", want: "k=v\x00"},
		{key: "k", value: "", want: "k=\x00"},
		{key: "k", value: "a=b\nc", want: "k=a=b\nc\x00"},
		{key: "k", value: strings.Repeat("x", 1<<20), want: "k=" + strings.Repeat("x", 1<<20) + "\x00"},

		{key: "", value: "v", err: "record key"},
		{key: "a=b", value: "v", err: "record key"},
		{key: "a\x00b", value: "v", err: "record key"},
		{key: "k", value: "a\x00b", err: "value of k contains a NUL byte"},
	} {
		t.Run(fmt.Sprintf("%.20q=%.20q", tt.key, tt.value), func(t *testing.T) {
			got, err := Append(nil, tt.key, tt.value)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || len(got) != 0 {
					t.Errorf("Append = %q, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || string(got) != tt.want {
				t.Errorf("Append = %.40q, %v; want %.40q", got, err, tt.want)
			}
		})
	}
}

func TestMarshalRefusesAll(t *testing.T) {
	if got, err := Marshal([]Record{{"a", "b"}, {"c", "\x00"}}); err == nil || got != nil {
		t.Errorf("Marshal = %q, %v; want no message and an error", got, err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{"", "a=b\x00", "a=b\x00a=\x00", "=\x00", "a", "\x00\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		records, err := Unmarshal(message)
		if err != nil {
			return
		}
		again, err := Marshal(records)
		if err != nil || !bytes.Equal(again, message) {
			t.Fatalf("Marshal(Unmarshal(%q)) = %q, %v", message, again, err)
		}
		if twice, err := Unmarshal(again); err != nil || !slices.Equal(twice, records) {
			t.Fatalf("Unmarshal(%q) = %q, %v; want %q", again, twice, err, records)
		}
	})
}
