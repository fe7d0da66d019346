// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"syscall"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/resolve"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// digestOf returns the digest of the image, which is pulled if that is needed
// and wanted. It is empty if the image is used in place.
func digestOf(cfg config.Config, path string, r request.Request, image ref.Ref, env []string) (string, error) {
	cache, err := userCache(cfg, r.UID)
	if err != nil {
		return "", err
	}
	answer, err := resolve.Decide(resolve.Question{Image: image, Pull: r.Pull, Platform: r.Platform, Config: cfg, Cache: cache})
	if err != nil || answer.InPlace || answer.Digest != "" {
		return answer.Digest, err
	}
	return pull(cfg, path, image, pullFlags(answer.Fetch, r), env)
}

func pullFlags(fetch resolve.Fetch, r request.Request) []string {
	flags := []string{"--json"}
	for _, f := range []struct {
		set  bool
		flag string
	}{{fetch.IfMissing, "--if-missing"}, {fetch.Offline, "--offline"}, {r.Verbosity == request.Quiet, "--quiet"}} {
		if f.set {
			flags = append(flags, f.flag)
		}
	}
	if r.Platform != "" {
		flags = append(flags, "--platform", r.Platform)
	}
	return flags
}

func userCache(cfg config.Config, uid uint32) (string, error) {
	u, err := user.LookupId(fmt.Sprint(uid))
	if err != nil {
		return "", fmt.Errorf("find user %d: %w", uid, err)
	}
	return cfg.UserCache(u.Username, int(uid), u.HomeDir), nil
}

// pull runs "brolga pull", with its progress on standard error, and returns the
// digest it resolved the image to.
func pull(cfg config.Config, path string, image ref.Ref, flags, env []string) (string, error) {
	output, input, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("pull %s: %w", image, err)
	}
	defer output.Close()
	argv := []string{cfg.Client, "pull"}
	if path != "" {
		argv = append(argv, "--config", path)
	}
	pid, err := syscall.ForkExec(cfg.Client, append(append(argv, flags...), image.Argument()), &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{0, input.Fd(), 2},
	})
	input.Close()
	if err != nil {
		return "", fmt.Errorf("pull %s: start %s: %w", image, cfg.Client, err)
	}
	printed, readErr := budget.Read(output, maxPulled)
	if err := errors.Join(readErr, wait(pid)); err != nil {
		return "", fmt.Errorf("pull %s: %w", image, err)
	}
	var pulled resolve.Pulled
	if err := json.Unmarshal(printed, &pulled); err != nil || !ref.IsDigest(pulled.Digest) {
		return "", fmt.Errorf("internal error: %s pull printed %q", cfg.Client, printed)
	}
	return pulled.Digest, nil
}

// maxPulled limits the size in bytes of what a pull prints: two names.
const maxPulled = 64 << 10

// errReported means that the user has read on standard error what went wrong.
var errReported = errors.New("the program has said why")

func wait(pid int) error {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return err
		case status.Signaled():
			return fmt.Errorf("ended by signal %s", status.Signal())
		case status.ExitStatus() != 0:
			return errReported
		}
		return nil
	}
}
