// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestString(t *testing.T) {
	for _, tt := range []struct {
		name  string
		event Event
		want  string
	}{
		{"a container", Event{
			UID: 1010, User: "anna", Node: "n1", Step: "7.0", Image: "docker.io/library/debian:12", Digest: "sha256:ab", Way: "kernel",
			Options: map[string]string{"container-mounts": "/a:/b", "container-image": "debian:12"},
		}, `result=started uid=1010 user=anna step=7.0 node=n1 image=docker.io/library/debian:12 digest=sha256:ab way=kernel option.container-image=debian:12 option.container-mounts=/a:/b`},
		{"none", Event{User: "anna", Refused: errors.New("no \"such\"\nimage")},
			`result=refused uid=0 user=anna step="" node="" image="" digest="" way="" reason="no \"such\"\nimage"`},
		{"a forged line", Event{User: "a", Image: "x\n<86>Jan  1 00:00:00 brolga[1]: result=started uid=0", Way: "b c=d\x00\xff\u2028"},
			`result=started uid=0 user=a step="" node="" image="x\n<86>Jan  1 00:00:00 brolga[1]: result=started uid=0" digest="" way="b c=d\x00\xff\u2028"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.event.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestStringIsBounded checks the longest lines that a user can bring about.
func TestStringIsBounded(t *testing.T) {
	for _, unit := range []string{"x", "\n", "\xff", "\U0010ffff", " "} {
		long := strings.Repeat(unit, 10000)
		e := Event{User: long, Node: long, Step: long, Image: long, Digest: long, Way: long, Refused: errors.New(long), Options: map[string]string{}}
		for i := range 100 {
			e.Options[fmt.Sprintf("option-%d", i)] = long
		}
		got := e.String()
		if len(got) > 7*(maxValue+20)+maxOptions+40 {
			t.Errorf("%q: %d bytes", unit, len(got))
		}
		if !strings.Contains(got, "options_left_out=") {
			t.Errorf("%q: it does not say that options are left out", unit)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q: it has other characters than ASCII", unit)
		}
	}
}

func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if _, err := Open(path); err == nil {
		t.Error("a log that is not there is opened")
	}
	syslog, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer syslog.Close()
	log, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Write(Event{User: "anna"}); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 4096)
	n, err := syslog.Read(text)
	if got := string(text[:n]); err != nil || !strings.HasPrefix(got, "<86>") || !strings.Contains(got, "]: result=started uid=0 user=anna ") {
		t.Errorf("the log got %q, %v", got, err)
	}
	// Nobody reads any more: it must not wait.
	for range 10000 {
		if err := log.Write(Event{}); err != nil {
			return
		}
	}
	t.Error("a log that nobody reads takes everything")
}
