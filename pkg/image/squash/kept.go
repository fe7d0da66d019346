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

// copy copies the content of a file to w, and keeps it if the name is one of
// k's. It uses buf.
func (k Kept) copy(w io.Writer, r io.Reader, name string, size int64, buf []byte) error {
	_, wanted := k[name]
	if !wanted || size > keptLimit {
		_, err := io.CopyBuffer(w, r, buf)
		return err
	}
	var content bytes.Buffer
	_, err := io.CopyBuffer(io.MultiWriter(w, &content), r, buf)
	k[name] = content.Bytes()
	return err
}
