// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"context"
	"encoding/json"
)

// Parse has a program, brolga-parse, read the input in a format, "cdi" or "seccomp", and
// decodes its answer. It runs in the namespaces of the calling thread.
func Parse(ctx context.Context, program, format string, input []byte, answer any) error {
	var out bytes.Buffer
	err := Run(ctx, Cmd{Path: program, Args: []string{format}, Stdin: bytes.NewReader(input), Stdout: &out})
	if err == nil {
		err = json.Unmarshal(out.Bytes(), answer)
	}
	return err
}
