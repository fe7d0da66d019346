// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"bytes"
	"io"
)

// Kept maps names of files to their content, which is nil for a name that the
// image does not have as a regular file, or one larger than keptLimit.
type Kept map[string][]byte

// keptLimit is the size in bytes up to which content is kept.
const keptLimit = 1 << 20

// copy copies the content of n to w, and keeps it if its name is one of k's.
func (k Kept) copy(w io.Writer, r io.Reader, n *node) error {
	if _, wanted := k[n.path]; !wanted || n.size > keptLimit {
		_, err := io.Copy(w, r)
		return err
	}
	var content bytes.Buffer
	_, err := io.Copy(io.MultiWriter(w, &content), r)
	k[n.path] = content.Bytes()
	return err
}
