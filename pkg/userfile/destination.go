// SPDX-License-Identifier: Apache-2.0

package userfile

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// Destination opens the directory of a file that is to be made, or replaced, as a
// place only (O_PATH). Where the file cannot be made it says why.
func Destination(path string) (*os.File, error) {
	dir, err := open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	err = denied(filepath.Dir(path), unix.Faccessat(int(dir.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS))
	var st unix.Stat_t
	if err == nil && unix.Fstatat(int(dir.Fd()), filepath.Base(path), &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fault.WithHint(fmt.Errorf("%s exists and is no regular file", path), "choose another name")
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}
