// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// SSHPath is where the program is that is SSH server and client in containers.
func SSHPath() string { return filepath.Join(Prefix, "libexec/brolga/brolga-ssh") }

// SSH is the part of [Config] about SSH servers in containers.
type SSH struct {
	// Enabled lets users have them.
	Enabled bool `toml:"enabled"`
	// Ports are those on which servers may listen, FIRST-LAST.
	Ports PortRange `toml:"ports"`
	// Connections limits how many clients are logged in to one server, Sessions how
	// many commands, shells and transfers they have together.
	Connections int `toml:"connections"`
	Sessions    int `toml:"sessions"`
	// LoginTime is how long a client may take to log in.
	LoginTime Duration `toml:"login_time"`
	// Forwarding lets clients open connections to elsewhere through the server.
	Forwarding bool `toml:"forwarding"`
}

// PortRange is a range of TCP ports, written FIRST-LAST.
type PortRange struct{ First, Last uint16 }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *PortRange) UnmarshalText(text []byte) error {
	first, last, ok := strings.Cut(string(text), "-")
	a, errFirst := strconv.ParseUint(first, 10, 16)
	b, errLast := strconv.ParseUint(last, 10, 16)
	if !ok || errFirst != nil || errLast != nil {
		return fmt.Errorf("%q is not a range of ports such as 20000-29999", text)
	}
	*p = PortRange{uint16(a), uint16(b)}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (p PortRange) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String returns the range as UnmarshalText reads it.
func (p PortRange) String() string { return fmt.Sprintf("%d-%d", p.First, p.Last) }

func checkSSH(c Config) error {
	var errs []error
	if p := c.SSH.Ports; p.First < 1024 || p.Last < p.First {
		errs = append(errs, fmt.Errorf(`ssh.ports = "%d-%d": want a range of ports from 1024 on, the lower one first`, p.First, p.Last))
	}
	if c.SSH.Connections <= 0 {
		errs = append(errs, errors.New("ssh.connections: want more than zero"))
	}
	if c.SSH.Sessions <= 0 {
		errs = append(errs, errors.New("ssh.sessions: want more than zero"))
	}
	if c.SSH.LoginTime <= 0 {
		errs = append(errs, errors.New("ssh.login_time: want more than zero"))
	}
	return errors.Join(errs...)
}
