// SPDX-License-Identifier: Apache-2.0

package external

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/process"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// The stage poststop comes when the step has ended, and no process of the helper is
// left by then. The helper leaves a note in the node's run directory, which only root
// can write to: which processes must end, what is to be run, as it was described and
// selected when the step began, and who will see to it. That is the step's slurmstepd, which starts a helper
// for it. If slurmstepd is killed itself, the next helper that does this on the node
// finds the note of one that is gone, and does that, too.

// stopper is a program that runs when the container is gone.
type stopper struct{ program }

// note is the content of the file.
type note struct {
	State    specs.State
	Programs []Descriptor
	// Paths are those of the descriptors.
	Paths   []string
	Timeout time.Duration
	// Processes are killed, with all that they have started.
	Processes []process.ID
	// Owner is the process that sees to it.
	Owner process.ID
}

// maxNote limits the size in bytes of a note. It has the annotations of the step.
const maxNote = 4 << 20

// Notes is the directory of the notes, which is the same whatever the site has set: the
// plugin looks there at the end of a job (spank/epilog.c).
func Notes() string { return filepath.Join(config.RunDir, "poststop") }

// Leave notes in a directory, which it makes, the programs among the hooks that run
// after the end of the container with that state. Owner is the number of the process
// that sees to it. It returns the path of the note, or "" if there is no such program.
func Leave(dir string, hooks []hook.Hook, state specs.State, owner int) (string, error) {
	n := note{State: state}
	for _, h := range hooks {
		if s, ok := h.(stopper); ok {
			n.Programs, n.Paths, n.Timeout = append(n.Programs, s.Descriptor), append(n.Paths, s.Path), s.o.Timeout
		}
	}
	if len(n.Programs) == 0 {
		return "", nil
	}
	path, err := n.write(dir, owner)
	if err != nil {
		return "", fmt.Errorf("note what runs at poststop: %w", err)
	}
	return path, nil
}

// LeaveProcesses notes processes that must not outlive a step with what they have started,
// as Leave notes programs. Their user may have stopped them, and then they notice no end
// of anything. The
// processes must not have been waited for: their numbers are theirs.
func LeaveProcesses(dir, step string, pids []int, owner int) (string, error) {
	n := note{State: specs.State{Version: specs.Version, ID: "step-" + step}}
	for _, pid := range pids {
		p, err := identify(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("note what ends with the step: %w", err)
		}
		n.Processes = append(n.Processes, p)
	}
	if len(n.Processes) == 0 {
		return "", nil
	}
	path, err := n.write(dir, owner)
	if err != nil {
		return "", fmt.Errorf("note what ends with the step: %w", err)
	}
	return path, nil
}

// Refuse is Leave where nobody sees the end of a container.
func Refuse(hooks []hook.Hook) error {
	for _, h := range hooks {
		if s, ok := h.(stopper); ok {
			return fault.WithHint(fmt.Errorf("hook %s: it runs when a step has ended (poststop), which only Slurm sees", s.Path),
				"an administrator gives it a condition; brolga hooks lists them")
		}
	}
	return nil
}

func (n note) write(dir string, owner int) (path string, err error) {
	if n.Owner, err = identify(owner); err != nil {
		return "", err
	}
	n.State.Status = specs.StateStopped
	text, err := json.Marshal(n)
	if err == nil {
		err = trust.MakeAll(dir, 0o700)
	}
	if err != nil {
		return "", err
	}
	// Others read what has the name of a note: it gets that when it is complete.
	f, err := os.CreateTemp(dir, ".new-"+n.State.ID+"-")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, strings.TrimPrefix(filepath.Base(f.Name()), ".new-"))
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return path, nil
}

// identify returns an error that wraps [fs.ErrNotExist] for a process that has ended, also
// if nobody has waited for it yet.
func identify(pid int) (process.ID, error) {
	p, err := process.Find(pid)
	if err == nil && p.IsZombie {
		err = fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	return p.ID, err
}

// Stopped runs the programs of a note, which it removes, and then those of other notes
// beside it whose owners are gone. Tell gets a line for each program that fails.
func Stopped(path string, runner *Runner, tell func(line string)) error {
	err := runNote(path, runner, tell, func(process.ID) bool { return true })
	return errors.Join(err, Abandoned(filepath.Dir(path), runner, tell))
}

// Abandoned runs the programs of the notes in a directory whose owners are gone.
func Abandoned(dir string, runner *Runner, tell func(line string)) error {
	removeUnfinished(dir)
	notes, err := filepath.Glob(filepath.Join(dir, "step-*"))
	for _, note := range notes {
		err = errors.Join(err, runNote(note, runner, tell, isGone))
	}
	return err
}

// removeUnfinished removes notes of helpers that were killed while they wrote them. A note
// is written within milliseconds.
func removeUnfinished(dir string) {
	notes, _ := filepath.Glob(filepath.Join(dir, ".new-step-*")) // the pattern is right
	for _, note := range notes {
		if st, err := os.Lstat(note); err == nil && time.Since(st.ModTime()) > time.Hour {
			_ = os.Remove(note) // the next job's end tries again
		}
	}
}

func isGone(owner process.ID) bool {
	lives, err := owner.Lives()
	return err == nil && !lives
}

// runNote runs the programs of one note, if its owner is one to run for. Two helpers
// that find the same one do not both run it.
func runNote(path string, runner *Runner, tell func(line string), runFor func(owner process.ID) bool) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // another one has done it
	}
	if err != nil {
		return fmt.Errorf("read what runs at poststop: %w", err)
	}
	defer f.Close()
	if locked, err := safefile.Try(f); !locked {
		return err // nil: another one is doing it
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink == 0 {
		return err
	}
	var n note
	if err := trust.CheckOpen(f, path); err != nil {
		return fmt.Errorf("read what runs at poststop: %w", err)
	}
	text, err := budget.Open(f, maxNote)
	if err == nil {
		err = json.Unmarshal(text, &n)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("read what runs at poststop, %s: %w", path, err), os.Remove(path))
	}
	if !runFor(n.Owner) {
		return nil
	}
	for _, p := range n.Processes {
		if err := p.KillTree(); err != nil {
			tell(fmt.Sprintf("%s: %v", n.State.ID, err))
		}
	}
	for i, d := range n.Programs {
		d.Path = n.Paths[i]
		p := program{d, "poststop", Options{Runner: runner, Timeout: n.Timeout, Tell: func(string) {}, Verbose: true}}
		if err := p.run(&n.State); err != nil {
			tell(fmt.Sprintf("%s: hook %s: %s", n.State.ID, p.Name(), strings.ReplaceAll(err.Error(), "\n", "; ")))
		}
	}
	return os.Remove(path)
}
