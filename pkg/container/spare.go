// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// coreToSpare tells whether a processor of the node has nothing to do right now.
// Where none has, work done ahead of time only takes the time of other work.
func coreToSpare() bool {
	text, err := os.ReadFile("/proc/loadavg")
	return err == nil && running(string(text)) <= runtime.NumCPU()
}

// running returns how many threads want to run, the caller included; proc(5):
// the fourth field of /proc/loadavg is RUNNING/ALL. What cannot be read is many.
func running(loadavg string) int {
	const many = 1 << 30
	fields := strings.Fields(loadavg)
	if len(fields) < 4 {
		return many
	}
	number, _, _ := strings.Cut(fields[3], "/")
	n, err := strconv.Atoi(number)
	if err != nil {
		return many
	}
	return n
}
