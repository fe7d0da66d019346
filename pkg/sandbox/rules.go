// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
)

// Rule allows access to a file, or to a directory and all below it. A path that does
// not exist when the sandbox is entered is passed over; links in it are followed.
type Rule struct {
	path   string
	file   *os.File // instead of path
	access access
}

func (r Rule) name() string {
	if r.file != nil {
		return r.file.Name()
	}
	return r.path
}

// Read allows to read files and to list directories.
func Read(paths ...string) []Rule { return rulesOf(readable, paths) }

// Run allows to read and to execute.
func Run(paths ...string) []Rule { return rulesOf(executable, paths) }

// Write allows to write to what exists.
func Write(paths ...string) []Rule { return rulesOf(writable, paths) }

// Change allows to read, write, make, rename and remove files and directories.
func Change(paths ...string) []Rule { return rulesOf(changeable, paths) }

// ReadOpen is Read for an open file or directory.
func ReadOpen(f *os.File) Rule { return Rule{file: f, access: readable} }

// WriteOpen is Write for an open file.
func WriteOpen(f *os.File) Rule { return Rule{file: f, access: writable} }

// ChangeOpen is Change for an open directory.
func ChangeOpen(f *os.File) Rule { return Rule{file: f, access: changeable} }

// Device allows to read, write and control a device.
func Device(path string) Rule { return Rule{path: path, access: controllable} }

func rulesOf(a access, paths []string) []Rule {
	var rules []Rule
	for _, p := range paths {
		rules = append(rules, Rule{path: p, access: a})
	}
	return rules
}

// Programs allows what programs of the system need to start, and to run what is
// installed beside them: the system's programs and libraries, and a few files that
// say nothing of anybody. A program in PREFIX/bin gets PREFIX, for libraries of its
// own.
func Programs(programs ...string) []Rule {
	rules := Run("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
	for _, program := range programs {
		dir := filepath.Dir(program)
		if base := filepath.Base(dir); base == "bin" || base == "sbin" {
			dir = filepath.Dir(dir)
		}
		if dir != "/" {
			rules = append(rules, Run(dir)...)
		}
	}
	rules = append(rules, Read("/etc/ld.so.cache", "/etc/ld.so.preload", "/dev/urandom", "/dev/random", "/dev/zero",
		"/sys/devices/system/cpu")...) // glibc counts processors there
	return append(rules, Write("/dev/null")...)
}

// Internet allows to read what name resolution and TLS need.
func Internet() []Rule {
	return Read(
		"/etc", "/usr/share", "/usr/lib/ssl", "/usr/local/share", "/var/lib/ca-certificates",
		"/etc/resolv.conf", "/etc/ssl/certs", "/etc/pki/tls/certs", // links that lead elsewhere
		"/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/netconfig",
	)
}
