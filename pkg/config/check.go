// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// checks are what must hold of every configuration. All are run, so that an
// administrator sees all mistakes at once.
var checks = []func(Config) error{
	checkPaths,
	checkCache,
	checkStoreOwner,
	checkStoreDirs,
	checkStoreKeep,
	checkUserSquashfs,
	checkTrustedSquashfs,
	checkWorkdir,
	checkTmpfsSize,
	checkPullTimeout,
	checkConvert,
	checkSandbox,
	checkDevices,
	checkSeccomp,
	checkLabels,
	checkCDI,
	checkGPU,
	checkNamed,
	checkEnv,
	checkHooks,
	checkRegistries,
	checkMPI,
	checkSync,
	checkMountSets,
	checkSSH,
	func(c Config) error { return c.Policy.Validate() },
}

// Check returns all that is wrong with c, joined, or nil.
func (c Config) Check() error {
	var errs []error
	for _, check := range checks {
		errs = append(errs, check(c))
	}
	return errors.Join(errs...)
}

func checkPaths(c Config) error {
	type setting struct{ key, path string }
	paths := []setting{{"run_dir", c.RunDir}, {"client", c.Client}, {"tar2sqfs", c.Tar2sqfs}, {"squashfuse", c.Squashfuse}, {"sqfs2tar", c.Sqfs2tar}}
	if c.AuditLog != "" {
		paths = append(paths, setting{"audit_log", c.AuditLog})
	}
	if c.StoreCopyTo != "" {
		paths = append(paths, setting{"store_copy_to", c.StoreCopyTo})
	}
	var errs []error
	if len(c.Store) == 0 {
		errs = append(errs, errors.New("store = []: want a directory"))
	}
	for _, dir := range slices.Backward(c.Store) {
		paths = append([]setting{{"store", dir}}, paths...)
	}
	for _, p := range paths {
		if !filepath.IsAbs(p.path) || filepath.Clean(p.path) != p.path {
			errs = append(errs, fmt.Errorf("%s = %q: want an absolute path without . and ..", p.key, p.path))
		}
	}
	return errors.Join(errs...)
}

func checkCache(c Config) error {
	path := c.UserCache("u", 1, "/h")
	if !filepath.IsAbs(path) || strings.ContainsAny(path, "{}") {
		return fmt.Errorf("cache = %q: want an absolute path with {home}, {user} or {uid}", c.Cache)
	}
	if path == c.Cache {
		return fmt.Errorf("cache = %q: users would share it; put {home}, {user} or {uid} in it", c.Cache)
	}
	return nil
}

func checkStoreOwner(c Config) error {
	if c.StoreOwner == "" || c.StoreOwner == "root" {
		return fmt.Errorf("store_owner = %q: want a user without privilege", c.StoreOwner)
	}
	return nil
}

// checkStoreDirs checks that no directory is named twice: each has its own
// images, and its own limit.
func checkStoreDirs(c Config) error {
	dirs := append(slices.Clone(c.Store), c.StoreCopyTo)
	for i, dir := range dirs {
		if dir != "" && slices.Contains(dirs[:i], dir) {
			return fmt.Errorf("store: %q is named twice", dir)
		}
	}
	return nil
}

func checkStoreKeep(c Config) error {
	if c.StoreKeep < 0 {
		return errors.New("store_keep: want zero or more")
	}
	return nil
}

func checkUserSquashfs(c Config) error {
	switch c.UserSquashfs {
	case SquashfsFuse, SquashfsConvert, SquashfsKernel, SquashfsDeny:
		return nil
	}
	return fmt.Errorf("user_squashfs = %q: want fuse, convert, kernel or deny", c.UserSquashfs)
}

func checkTrustedSquashfs(c Config) error {
	var errs []error
	for _, dir := range c.TrustedSquashfs {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("trusted_squashfs: %q: want an absolute path", dir))
		}
	}
	return errors.Join(errs...)
}

func checkWorkdir(c Config) error {
	if c.Container.Workdir != "job" && c.Container.Workdir != "image" {
		return fmt.Errorf("container.workdir = %q: want job or image", c.Container.Workdir)
	}
	return nil
}

// IsTmpfsSize tells whether text is a number and a unit, as tmpfs(5) has them.
func IsTmpfsSize(text string) bool {
	number := strings.TrimRight(text, "kKmMgG%")
	n, err := strconv.ParseUint(number, 10, 63)
	return err == nil && n > 0 && len(text)-len(number) <= 1
}

func checkTmpfsSize(c Config) error {
	if !IsTmpfsSize(c.Container.TmpfsSize) {
		return fmt.Errorf("container.tmpfs_size = %q: want a size such as 2g or 25%%", c.Container.TmpfsSize)
	}
	return nil
}

func checkPullTimeout(c Config) error {
	if c.PullTimeout <= 0 {
		return errors.New("pull_timeout: want more than zero")
	}
	return nil
}

func checkConvert(c Config) error {
	var errs []error
	for _, limit := range []struct {
		key   string
		value int64
	}{
		{"per_node", int64(c.Convert.PerNode)},
		{"per_user", int64(c.Convert.PerUser)},
		{"timeout", int64(c.Convert.Timeout)},
		{"unpacked", int64(c.Convert.Unpacked)},
		{"squashfs", int64(c.Convert.Squashfs)},
		{"files", c.Convert.Files},
	} {
		if limit.value <= 0 {
			errs = append(errs, fmt.Errorf("convert.%s: want more than zero", limit.key))
		}
	}
	if c.Convert.Memory < minMemory {
		errs = append(errs, fmt.Errorf("convert.memory = %q: want %s or more", c.Convert.Memory, Size(minMemory)))
	}
	return errors.Join(errs...)
}

// minMemory is what converting an image takes, whatever is in it.
const minMemory = 1 << 30

func checkSandbox(c Config) error {
	var errs []error
	if !slices.Contains([]string{SandboxAuto, SandboxRequired, SandboxOff}, c.Sandbox.Mode) {
		errs = append(errs, fmt.Errorf("sandbox.mode = %q: want auto, required or off", c.Sandbox.Mode))
	}
	for key, paths := range map[string][]string{"read": c.Sandbox.Read, "write": c.Sandbox.Write} {
		for _, path := range paths {
			if !filepath.IsAbs(path) || filepath.Clean(path) != path {
				errs = append(errs, fmt.Errorf("sandbox.%s: %q: want an absolute path without . and ..", key, path))
			}
		}
	}
	return errors.Join(errs...)
}

func checkDevices(c Config) error {
	var errs []error
	for _, pattern := range c.Container.Devices {
		if !isDevicePattern(pattern) {
			errs = append(errs, fmt.Errorf("container.devices: %q: want a pattern below /dev", pattern))
		}
	}
	return errors.Join(errs...)
}

func checkSeccomp(c Config) error {
	if path := c.Container.Seccomp; path != "" && (!filepath.IsAbs(path) || filepath.Clean(path) != path) {
		return fmt.Errorf("container.seccomp = %q: want an absolute path without . and ..", path)
	}
	return nil
}

// checkLabels checks what is written to the kernel as it is (task/label.c).
func checkLabels(c Config) error {
	var errs []error
	for key, label := range map[string]string{"apparmor_profile": c.Container.AppArmorProfile, "selinux_label": c.Container.SELinuxLabel} {
		if strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r > '~' }) || len(label) > 1024 {
			errs = append(errs, fmt.Errorf("container.%s = %q: want at most 1024 printable characters without blanks", key, label))
		}
	}
	return errors.Join(errs...)
}

func checkHooks(c Config) error {
	var errs []error
	for _, dir := range c.Hooks.Directories {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("hooks.directories: %q: want an absolute path", dir))
		}
	}
	if path := c.Hooks.Timestamps; path != "" && (!filepath.IsAbs(path) || filepath.Clean(path) != path) {
		errs = append(errs, fmt.Errorf("hooks.timestamps = %q: want an absolute path without . and ..", path))
	}
	if c.Hooks.Timeout <= 0 {
		errs = append(errs, errors.New("hooks.timeout: want more than zero"))
	}
	for _, pattern := range c.Hooks.Labels {
		if _, err := path.Match(pattern, ""); err != nil {
			errs = append(errs, fmt.Errorf("hooks.labels: %q: want a name, in which * stands for any characters but /", pattern))
		}
	}
	return errors.Join(errs...)
}

func isDevicePattern(pattern string) bool {
	_, err := filepath.Match(pattern, "")
	return err == nil && strings.HasPrefix(filepath.Clean(pattern), "/dev/")
}
