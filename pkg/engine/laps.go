// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/trust"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// laps measures the parts of the helper's work, from last on.
type laps struct {
	last  time.Time
	parts []part
}

// part is a part of the work, or a hook's part in the one that ends next.
type part struct {
	hook.Lap
	isHook bool
}

// add ends the part called name.
func (l *laps) add(name string) {
	now := time.Now()
	l.parts = append(l.parts, part{hook.Lap{Name: name, Ended: now, Took: now.Sub(l.last)}, false})
	l.last = now
}

// hooks adds what hooks took.
func (l *laps) hooks(all ...hook.Lap) {
	for _, lap := range all {
		l.parts = append(l.parts, part{lap, true})
	}
}

// records returns the line that srun --slurmd-debug=debug shows.
func (l *laps) records(began time.Time) []wire.Record {
	var text, hooks []string
	for _, p := range l.parts {
		took := fmt.Sprintf("%s %s ms", p.Name, milliseconds(p.Took))
		if p.isHook {
			hooks = append(hooks, took)
			continue
		}
		if len(hooks) > 0 {
			took += " (" + strings.Join(hooks, ", ") + ")"
		}
		text, hooks = append(text, took), nil
	}
	line := fmt.Sprintf("container ready in %s ms: %s; %s ms of processor time",
		milliseconds(time.Since(began)), strings.Join(text, ", "), milliseconds(processorTime()))
	return []wire.Record{{Key: "debug", Value: line}}
}

// processorTime returns what this process has used. It tells more than a clock where a
// node has other work.
func processorTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1e3) }

// write appends the parts to a file of the site's: for each a line with the time at
// which it ended, the node, the step, its name, and nanoseconds. Lines of steps on one
// node do not mix. The file's directory must be root's alone.
func (l *laps) write(path, node, step string, began time.Time) error {
	if err := trust.Check(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write times: %w", err)
	}
	var text strings.Builder
	line := func(name string, at time.Time, took time.Duration) {
		name = strings.ReplaceAll(name, " ", "_")
		fmt.Fprintf(&text, "%s %s %s %s %d\n", at.UTC().Format("2006-01-02T15:04:05.000000000Z"), node, step, name, took)
	}
	line("begin", began, 0)
	for _, p := range l.parts {
		name := p.Name
		if p.isHook {
			name = "hook:" + name
		}
		line(name, p.Ended, p.Took)
	}
	line("ready", l.last, l.last.Sub(began))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return fmt.Errorf("write times: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(text.String()); err != nil {
		return fmt.Errorf("write times: %w", err)
	}
	return nil
}
