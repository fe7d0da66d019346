// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// options are what was asked for, as ssh(1) has it.
type options struct {
	host, user string
	command    string
	// terminal is how often -t was given, -1 for -T.
	terminal                      int
	noInput, subsystem, noCommand bool
	version                       bool
	timeout                       time.Duration
	send, set                     []string // SendEnv, SetEnv
}

// Options of ssh(1) that have no argument and those that have one. What is in
// neither is a mistake.
const (
	flags     = "46AaCfGgKkMNnqsTtVvXxYy"
	arguments = "BbcDEeFIiJLlmOopPQRSWw"
	// refused are those that would make it something other than a client of a command.
	refused = "fGMDJLORSWwQ"
)

// errUsage means that no host was given.
var errUsage = errors.New("usage: ssh [-nqTtvx] [-l user] [-o option] [-p port] [-s] host [command ...]")

// parse reads a command line. Options may follow the host, too.
func parse(args []string) (options, error) {
	var o options
	for o.host == "" {
		rest, err := o.parseFlags(args)
		if err != nil || o.version {
			return o, err
		}
		if len(rest) == 0 {
			return o, errUsage
		}
		if err := o.setHost(rest[0]); err != nil {
			return o, err
		}
		args = rest[1:]
	}
	rest, err := o.parseFlags(args)
	if err != nil {
		return o, err
	}
	o.command = strings.Join(rest, " ")
	if o.subsystem && o.command == "" {
		return o, errors.New("-s needs the name of a subsystem")
	}
	return o, nil
}

// parseFlags reads options up to the first word that is none.
func (o *options) parseFlags(args []string) ([]string, error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		word := args[0]
		args = args[1:]
		if word == "--" {
			break
		}
		for i, c := range word[1:] {
			if strings.ContainsRune(refused, c) {
				return nil, fmt.Errorf("-%c is not known to Brolga's client: install OpenSSH's in the image", c)
			}
			if strings.ContainsRune(flags, c) {
				o.flag(c)
				continue
			}
			if !strings.ContainsRune(arguments, c) {
				return nil, fmt.Errorf("unknown option -%c", c)
			}
			value := word[1+i+1:]
			if value == "" {
				if len(args) == 0 {
					return nil, fmt.Errorf("-%c needs a value", c)
				}
				value, args = args[0], args[1:]
			}
			if err := o.argument(c, value); err != nil {
				return nil, err
			}
			break
		}
	}
	return args, nil
}

func (o *options) flag(c rune) {
	switch c {
	case 'n':
		o.noInput = true
	case 'N':
		o.noCommand = true
	case 's':
		o.subsystem = true
	case 'T':
		o.terminal = -1
	case 't':
		o.terminal = max(o.terminal, 0) + 1
	case 'V':
		o.version = true
	}
}

// argument takes an option with a value. The port, the key and files with options
// are known already; what is for them is no mistake.
func (o *options) argument(c rune, value string) error {
	switch c {
	case 'l':
		o.user = value
	case 'o':
		return o.setting(value)
	case 'p':
		if n, err := strconv.ParseUint(value, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("-p %s: bad port", value)
		}
	}
	return nil
}

// setting takes what -o has, KEY=VALUE or KEY VALUE (ssh_config(5)). Of those that
// are not listed Brolga has its own idea.
func (o *options) setting(text string) error {
	i := strings.IndexAny(text, "= \t")
	if i < 0 {
		return fmt.Errorf("-o %s: want KEY=VALUE", text)
	}
	key, value := strings.ToLower(text[:i]), strings.TrimLeft(text[i:], "= \t")
	switch key {
	case "user":
		o.user = value
	case "requesttty":
		o.terminal = map[string]int{"yes": 1, "force": 2, "no": -1}[strings.ToLower(value)]
	case "stdinnull":
		o.noInput = strings.EqualFold(value, "yes")
	case "sendenv":
		o.send = append(o.send, strings.Fields(value)...)
	case "setenv":
		o.set = append(o.set, value)
	case "connecttimeout":
		seconds, err := strconv.Atoi(value)
		if err != nil || seconds < 0 {
			return fmt.Errorf("-o %s: want a number of seconds", text)
		}
		o.timeout = time.Duration(seconds) * time.Second
	}
	return nil
}

// setHost takes [USER@]HOST or ssh://[USER@]HOST[:PORT].
func (o *options) setHost(text string) error {
	if strings.HasPrefix(text, "ssh://") {
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" {
			return fmt.Errorf("%s: want ssh://[USER@]HOST[:PORT]", text)
		}
		o.host = u.Hostname()
		if name := u.User.Username(); name != "" {
			o.user = name
		}
		return nil
	}
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		o.user, text = text[:i], text[i+1:]
	}
	if text == "" {
		return errUsage
	}
	o.host = text
	return nil
}
