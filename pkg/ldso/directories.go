// SPDX-License-Identifier: Apache-2.0

package ldso

import "runtime"

// Directories are where the loader looks in the end, whether or not there is a
// cache: Debian's, and those of most others.
func Directories() []string {
	triplet := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH] + "-linux-gnu"
	return []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
}
