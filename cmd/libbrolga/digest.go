// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"syscall"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/source"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/policy"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// errNotCached means that the user's cache does not know the image.
var errNotCached = errors.New("image is not in the cache")

// digestOf returns the digest of the image, which is pulled if that is needed
// and wanted.
func digestOf(cfg config.Config, path string, r request.Request, image ref.Ref, env []string) (string, error) {
	if usedInPlace, err := checkPlace(cfg, image); err != nil || usedInPlace {
		return "", err
	}
	platform, err := layout.PlatformOr(r.Platform, layout.Host())
	if err != nil {
		return "", fmt.Errorf("--%s: %w", option.Platform, err)
	}
	// Signatures are verified by the pull, which says what it thinks of them.
	signed := cfg.Policy.RuleFor(image.Origin()).Check != policy.Off
	if r.Pull != "always" {
		digest, err := localDigest(cfg, r.UID, image, platform)
		switch {
		case err != nil && !errors.Is(err, errNotCached):
			return "", err
		case err == nil && !signed:
			return digest, nil
		case r.Pull == "never" && err == nil:
			return "", fmt.Errorf("--%s=never: this cluster verifies the signatures of %s, for which the registry is asked", option.Pull, image)
		case r.Pull == "never":
			return "", layout.NotCached(image.String())
		}
	}
	var flags []string
	if r.Pull != "always" {
		flags = append(flags, "--if-missing")
	}
	if r.Verbosity == request.Quiet {
		flags = append(flags, "--quiet")
	}
	if r.Platform != "" {
		flags = append(flags, "--platform", r.Platform)
	}
	return pull(cfg, path, image, flags, env)
}

// localDigest looks the image up in the user's cache, which knows an image only
// once it was pulled as a whole.
func localDigest(cfg config.Config, uid uint32, image ref.Ref, platform layout.Platform) (string, error) {
	u, err := user.LookupId(fmt.Sprint(uid))
	if err != nil {
		return "", fmt.Errorf("find user %d: %w", uid, err)
	}
	cache, err := layout.Open(cfg.UserCache(u.Username, int(uid), u.HomeDir))
	if err != nil {
		return "", errNotCached
	}
	digest, err := resolve(cache, image)
	if err != nil {
		return "", err
	}
	m, err := cache.Manifest(digest, platform)
	if err != nil {
		return "", errNotCached
	}
	// It may have been pulled for another platform, and an image on its own is in no
	// index that says so.
	if doc, err := cache.ReadBlob(m.Config.Digest, layout.MaxManifest); err == nil {
		if err := platform.Check(doc); err != nil {
			return "", fmt.Errorf("image %s: %w", image, err)
		}
	}
	whole, parts := m.Digests(digest)
	return digest, cfg.Policy.Permit(image.Origin(), whole, parts)
}

// resolve looks up what a name means. What is in a file is known from the cache
// as long as that is the same file.
func resolve(cache *layout.Layout, image ref.Ref) (string, error) {
	if !image.IsLocal() || image.Digest != "" {
		digest, err := cache.Resolve(image)
		if err != nil {
			return "", errNotCached
		}
		return digest, nil
	}
	if image.Kind == ref.OCI {
		return "", errNotCached // its index has to be read
	}
	f, err := source.File(image.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	stamp, err := source.Stamp(f)
	if err != nil {
		return "", err
	}
	index, err := cache.Index()
	if err != nil {
		return "", errNotCached
	}
	if d := index.FindSource(image.Name(), stamp); d != nil {
		return d.Digest, nil
	}
	return "", errNotCached
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
	printed, readErr := io.ReadAll(output)
	if err := errors.Join(readErr, wait(pid)); err != nil {
		return "", fmt.Errorf("pull %s: %w", image, err)
	}
	text := strings.TrimSpace(string(printed))
	digest := text[strings.LastIndexByte(text, '@')+1:] // a path may have one too
	if !ref.IsDigest(digest) {
		return "", fmt.Errorf("internal error: %s pull printed %q", cfg.Client, printed)
	}
	return digest, nil
}

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
