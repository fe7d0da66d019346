// SPDX-License-Identifier: Apache-2.0

// Package audit tells the node's syslog which container a step has got, and who has it.
//
// A line is for programs, too: NAME=VALUE, where a value with other characters than
// letters, digits and a few signs is quoted, as Go quotes. Nothing of a user's can end
// the line or a value, and each is cut where it is too long.
//
// A log must never keep a step from starting: a message is sent at once or not at all.
package audit

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Event is the start of a container, or that there is none.
type Event struct {
	UID              uint32
	User, Node, Step string
	Image, Digest    string
	// Way says how the image became a root file system.
	Way string
	// Options are what the user asked for.
	Options map[string]string
	// Refused says why there is no container.
	Refused error
}

// Limits of a line, which syslog daemons cut at 2048 bytes or later.
const (
	maxValue   = 256
	maxOptions = 768
)

// String returns the line.
func (e Event) String() string {
	result := "started"
	if e.Refused != nil {
		result = "refused"
	}
	fields := []string{
		"result=" + result, "uid=" + strconv.FormatUint(uint64(e.UID), 10), field("user", e.User), field("step", e.Step), field("node", e.Node),
		field("image", e.Image), field("digest", e.Digest), field("way", e.Way),
	}
	if e.Refused != nil {
		fields = append(fields, field("reason", e.Refused.Error()))
	}
	return strings.Join(append(fields, e.options()...), " ")
}

// options returns the user's options in the order of their names. The last field says
// how many were left out.
func (e Event) options() []string {
	var fields []string
	room, names := maxOptions, slices.Sorted(maps.Keys(e.Options))
	for i, name := range names {
		f := field("option."+name, e.Options[name])
		if room -= len(f) + 1; room < 0 {
			return append(fields, "options_left_out="+strconv.Itoa(len(names)-i))
		}
		fields = append(fields, f)
	}
	return fields
}

func field(name, value string) string { return name + "=" + quote(value) }

// quote returns a value of limited length on one line.
func quote(value string) string {
	cut := len(value) > maxValue
	if cut {
		value = value[:maxValue]
	}
	text := strconv.QuoteToASCII(value)
	if len(text) > maxValue { // many escapes
		text = strconv.QuoteToASCII(value[:maxValue/10]) // one takes ten bytes at most
		cut = true
	}
	plain := value != "" && strings.IndexFunc(value, func(r rune) bool {
		return r > '~' || !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+,", r)
	}) < 0
	switch {
	case cut:
		return text + "..."
	case plain:
		return value
	}
	return text
}

// priority is LOG_AUTHPRIV|LOG_INFO (syslog(3)).
const priority = 10<<3 | 6

// Log is a connection to a syslog.
type Log struct{ fd int }

// Open connects to the syslog at a path, best /dev/log. The path is the site's and is
// looked up in the calling thread's mount namespace.
func Open(path string) (*Log, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open the audit log %s: %w", path, err)
	}
	return &Log{fd}, nil
}

// Write sends an event, and does not wait for room.
func (l *Log) Write(e Event) error {
	text := fmt.Sprintf("<%d>%s brolga[%d]: %s", priority, time.Now().Format(time.Stamp), os.Getpid(), e)
	if err := unix.Send(l.fd, []byte(text), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("write to the audit log: %w", err)
	}
	return nil
}

// Close ends the connection.
func (l *Log) Close() error { return unix.Close(l.fd) }
