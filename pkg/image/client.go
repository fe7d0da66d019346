// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// pull runs brolga pull as the user.
func (g *getter) pull(ctx context.Context, r ref.Ref) error {
	if g.NoPull {
		return layout.NotCached(r.String())
	}
	limit := time.Duration(g.Config.PullTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("pull %s: not done after %s", r, limit))
	defer cancel()
	return g.client(ctx, command.Cmd{
		Args:     append(g.verb("pull"), "--quiet", "--if-missing", "--platform", g.Platform, "--cache", g.cache(), r.Argument()),
		Env:      g.userEnv(),
		Identity: &g.User,
		Join:     g.Join,
	})
}

// convert runs brolga convert as the store owner.
func (g *getter) convert(ctx context.Context, m layout.Manifest, files []*os.File, evidence []byte) error {
	args := append(g.verb("convert"), "--user", g.User.Name)
	if g.Platform != "" {
		args = append(args, "--platform", g.Platform)
	}
	if files == nil {
		args = append(args, "--verify") // the store has it
	}
	if g.Own != "" {
		args = append(args, "--own", g.Own)
	}
	c := command.Cmd{
		Args:     append(args, g.ref.String(), m.Digest),
		Env:      []string{path},
		Identity: &g.owner,
		Stdin:    bytes.NewReader(evidence),
		Files:    files,
	}
	if g.Own != "" {
		return g.client(ctx, c) // the user's processes, which are limited as the user is
	}
	// Signatures are noted by this conversion alone.
	return g.inTurn(ctx, m.Digest, files == nil || evidence != nil, c)
}

// client runs the brolga command and passes its error on.
func (g *getter) client(ctx context.Context, c command.Cmd) error {
	c.Path, c.TidiesUp = g.Config.Client, true
	// Its standard output is not read: the result is found in cache and store, and the
	// user can write to what a process of theirs has open.
	err := command.Run(ctx, c)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return command.PassOn(err)
}

func (g *getter) verb(name string) []string {
	if g.ConfigPath == "" {
		return []string{name}
	}
	return []string{name, "--config", g.ConfigPath}
}

const path = "PATH=/usr/local/bin:/usr/bin:/bin"

// fromJob lists what a pull needs of the job's environment: the way to the
// network and the place of credentials.
var fromJob = []string{
	"http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
	"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "ENROOT_CONFIG_PATH",
}

// userEnv returns the environment of a pull.
func (g *getter) userEnv() []string {
	env := []string{path, "HOME=" + g.User.Home, "USER=" + g.User.Name, "LOGNAME=" + g.User.Name}
	for _, v := range g.Env {
		if name, _, ok := strings.Cut(v, "="); ok && slices.Contains(fromJob, name) {
			env = append(env, v)
		}
	}
	return env
}
