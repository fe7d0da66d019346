// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/pull"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// runLogin keeps a user's name and password for a registry, once the registry
// has accepted them. There is no option for the password: others see arguments.
func runLogin(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	user := fs.String("username", "", "`USER` name; asked for if it is not given")
	fs.StringVar(user, "u", "", "short for --username `USER`")
	fromStdin := fs.Bool("password-stdin", false, "read the password from standard input")
	if err := v.parse(fs, args, 1, 1); err != nil {
		return err
	}
	if err := command.Hide(); err != nil {
		return err
	}
	registry, err := parseRegistry(fs.Arg(0))
	if err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	if err := conf.Registries.For(registry.Registry).Refusal(); err != nil {
		return err
	}
	c, err := askCredential(ctx, *user, *fromStdin)
	if err != nil {
		return err
	}
	if err := pull.Login(ctx, pull.Options{Ref: registry, Registries: conf.Registries}, c); err != nil {
		return err
	}
	where, err := credential.Finder{Env: os.Environ()}.Save(ctx, registry.Registry, c)
	if err != nil {
		return err
	}
	fmt.Printf("logged in to %s as %s; the password is kept in %s\n", registry.Registry, printable(c.User), where)
	return nil
}

// runLogout removes what is kept for a registry.
func runLogout(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	if err := v.parse(fs, args, 1, 1); err != nil {
		return err
	}
	if err := command.Hide(); err != nil { // it reads files of passwords
		return err
	}
	registry, err := parseRegistry(fs.Arg(0))
	if err != nil {
		return err
	}
	from, left, err := credential.Finder{Env: os.Environ()}.Erase(ctx, registry.Registry)
	for _, where := range from {
		fmt.Printf("removed the credentials for %s from %s\n", registry.Registry, where)
	}
	if len(from) == 0 && err == nil && left == "" {
		fmt.Printf("there were no credentials for %s\n", registry.Registry)
	}
	if left != "" {
		err = errors.Join(err, fault.WithHint(fmt.Errorf("%s still has credentials for %s", left, registry.Registry), "remove them with an editor"))
	}
	return err
}

// parseRegistry returns a reference to nothing in particular in a registry.
func parseRegistry(name string) (ref.Ref, error) {
	name = strings.TrimSuffix(strings.TrimPrefix(name, "https://"), "/")
	r, err := ref.Parse(name + "/x")
	if err != nil || r.IsLocal() || strings.ContainsAny(name, "/@") || (r.Registry == "docker.io" && !strings.HasSuffix(name, "docker.io")) {
		return ref.Ref{}, fault.WithHint(fmt.Errorf("%s is not a registry", fault.Line(fmt.Errorf("%q", strings.TrimSuffix(ref.Shown(name+"/x"), "/x")))),
			"name its host, such as docker.io or registry.example.org:5000")
	}
	return r, nil
}

// askCredential gets a name and a password from a person or from standard input.
func askCredential(ctx context.Context, user string, fromStdin bool) (credential.Credential, error) {
	if fromStdin {
		if user == "" {
			return credential.Credential{}, usagef("login: --password-stdin needs --username")
		}
		password, err := readPassword(os.Stdin)
		return check(user, password, err)
	}
	if _, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS); err != nil {
		return credential.Credential{}, fault.WithHint(errors.New("login: there is no terminal to ask for the password on"),
			"use --username and --password-stdin")
	}
	in := bufio.NewReader(os.Stdin)
	if user == "" {
		var err error
		if user, err = prompt(ctx, in, "username: "); err != nil {
			return credential.Credential{}, err
		}
	}
	password, err := promptHidden(ctx, in, "password: ")
	return check(user, password, err)
}

func check(user, password string, err error) (credential.Credential, error) {
	switch {
	case err != nil:
		return credential.Credential{}, err
	case user == "" || strings.ContainsAny(user, ":\n"): // separates name and password where they are kept
		return credential.Credential{}, errors.New("login: the user name is empty or has a colon")
	case password == "":
		return credential.Credential{}, errors.New("login: the password is empty")
	}
	return credential.Credential{User: user, Password: credential.Secret(password)}, nil
}

// readPassword reads all there is, less the end of the last line.
func readPassword(r io.Reader) (string, error) {
	const limit = 64 << 10 // some passwords are tokens
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return "", fmt.Errorf("login: read the password: %w", err)
	}
	if len(text) > limit {
		return "", errors.New("login: the password is longer than 64 KiB")
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// promptHidden asks for something that the terminal must not show.
func promptHidden(ctx context.Context, in *bufio.Reader, text string) (string, error) {
	fd := int(os.Stdin.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("login: hide the password: %w", err)
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return "", fmt.Errorf("login: hide the password: %w", err)
	}
	defer fmt.Fprintln(os.Stderr) // the user's was not shown either
	defer unix.IoctlSetTermios(fd, unix.TCSETS, before)
	return prompt(ctx, in, text)
}

// prompt asks on standard error and reads a line. A signal ends it, the line
// that is being read then goes nowhere.
func prompt(ctx context.Context, in *bufio.Reader, text string) (string, error) {
	fmt.Fprint(os.Stderr, text)
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		line, err := in.ReadString('\n')
		answered <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case a := <-answered:
		if a.err != nil && (a.line == "" || !errors.Is(a.err, io.EOF)) {
			return "", fmt.Errorf("login: read from the terminal: %w", a.err)
		}
		return strings.TrimRight(a.line, "\r\n"), nil
	}
}
