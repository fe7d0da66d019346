// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestHostlists(t *testing.T) {
	for _, tt := range []struct {
		list  string
		names string
		short string // as it is written; empty: as list
	}{
		{list: "", names: ""},
		{list: "n1", names: "n1"},
		{list: "n[1-3]", names: "n1 n2 n3"},
		{list: "n[1,3]", names: "n1 n3"},
		{list: "n[3,1]", names: "n3 n1"},
		{list: "n[008-011]", names: "n008 n009 n010 n011"},
		{list: "n[8-11]", names: "n8 n9 n10 n11"},
		{list: "n[1-2],login,gpu[1-2]", names: "n1 n2 login gpu1 gpu2"},
		{list: "rack[1-2]n[1-2]", names: "rack1n1 rack1n2 rack2n1 rack2n2", short: "rack1n[1-2],rack2n[1-2]"},
		{list: "n[1-2]-ib", names: "n1-ib n2-ib", short: "n1-ib,n2-ib"},
		{list: "127.0.0.[1,1,1]", names: "127.0.0.1 127.0.0.1 127.0.0.1"},
		{list: "10.0.0.[254-255],10.0.1.[0-1]", names: "10.0.0.254 10.0.0.255 10.0.1.0 10.0.1.1"},
		{list: "fe80::[1-2]", names: "fe80::1 fe80::2"},
		{list: "n1,n2", names: "n1 n2", short: "n[1-2]"},
		{list: "n9,n010", names: "n9 n010", short: "n[9,010]"},
		{list: "n", names: "n"},
		{list: "7,8", names: "7 8", short: "[7-8]"},
		{list: "n[18446744073709551615,1]", names: "n18446744073709551615 n1"},
	} {
		got, err := ParseHostlist(tt.list)
		if err != nil || !slices.Equal(got, strings.Fields(tt.names)) {
			t.Errorf("ParseHostlist(%q) = %q, %v; want %s", tt.list, got, err, tt.names)
		}
		if tt.short == "" {
			tt.short = tt.list
		}
		if got := Hostlist(got); got != tt.short {
			t.Errorf("Hostlist(%s) = %s; want %s", tt.names, got, tt.short)
		}
	}
}

func TestParseHostlistErrors(t *testing.T) {
	for _, list := range []string{
		"n[1-3", "n1]", "n[]", "n[a]", "n[3-1]", "n[1-]", "n[1-18446744073709551615]", "n[-1]", ",", "n1,,n2", "n[1][", "n[0-4000000000]",
		"n[0-9999][0-9999]", strings.Repeat("n[0-99999],", 20),
		long, strings.Repeat("n", maxName+1), "n[" + strings.Repeat("7", maxName) + "]",
		"n[" + strings.Repeat("0", 100) + "-40000]", strings.Repeat("n[0-9]", 40), strings.Repeat("n[1]", maxBrackets+1),
	} {
		if got, err := ParseHostlist(list); err == nil {
			t.Errorf("ParseHostlist(%.40q) = %d names; want an error", list, len(got))
		}
	}
}

// TestParseHostlistIsCheap checks that a short list cannot stand for much memory, whether it
// is refused or not.
func TestParseHostlistIsCheap(t *testing.T) {
	for _, list := range []string{
		long, strings.Repeat(long+",", 60), "n[1-65536]", "n[" + strings.Repeat("0", 100) + "-40000]",
		strings.Repeat("n[0-9]", 40), strings.Repeat("n[1]", 30000), strings.Repeat("n[0-65535],", 10000), "n[" + strings.Repeat("1,", 65000) + "1]",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = ParseHostlist(list) // what it costs counts
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		if allocated > 48<<20 { // with the race detector
			t.Errorf("ParseHostlist(%.40q) takes %d bytes in all; want at most 48 MiB", list, allocated)
		}
	}
}

// FuzzHostlist checks that what is written is read again.
func FuzzHostlist(f *testing.F) {
	f.Add("n[1-3,07],login")
	f.Add("a[1-2]b[3],c")
	f.Add("8888888888888888888888888888888,0")
	f.Add("9223372036854775807,9223372036854775808")
	f.Add("n[000000000000000000000000000000000000000000000000000-3]")
	f.Add("a[1-2][3-4][5-6]b[7][8][9]c")
	f.Fuzz(func(t *testing.T, list string) {
		names, err := ParseHostlist(list)
		if err != nil {
			return
		}
		size := 0
		for _, name := range names {
			size += len(name)
		}
		if len(names) > maxNodes || size > maxNames {
			t.Errorf("%q is %d names of %d bytes", list, len(names), size)
		}
		again, err := ParseHostlist(Hostlist(names))
		if err != nil || !slices.Equal(names, again) {
			t.Errorf("%q is %q; written as %q it is %q, %v", list, names, Hostlist(names), again, err)
		}
	})
}
