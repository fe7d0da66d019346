// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"
	"time"

	"github.com/brolga-hpc/brolga/pkg/wire"
)

// laps measures the parts of the helper's work, from last on.
type laps struct {
	last time.Time
	text []string
}

// add ends the part called name.
func (l *laps) add(name string) {
	now := time.Now()
	l.text = append(l.text, fmt.Sprintf("%s %.1f ms", name, float64(now.Sub(l.last).Microseconds())/1e3))
	l.last = now
}

// records returns the line that srun --slurmd-debug=debug shows.
func (l *laps) records(began time.Time) []wire.Record {
	total := float64(time.Since(began).Microseconds()) / 1e3
	return []wire.Record{{Key: "debug", Value: fmt.Sprintf("container ready in %.1f ms: %s", total, strings.Join(l.text, ", "))}}
}
