// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	const rest = " 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 8 9"
	for text, want := range map[string]Process{
		"7 (sh) S" + rest:        {ID{7, "4711"}, 3, false},
		"7 (a) Z (b c) R" + rest: {ID{7, "4711"}, 3, false},
		"7 (x) Z" + rest:         {ID{7, "4711"}, 3, true},
		"7 (x) X" + rest + "\n":  {ID{7, "4711"}, 3, true},
	} {
		if got, ok := parse(text); !ok || got != want {
			t.Errorf("parse(%q) = %+v, %v; want %+v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "7 (x) S 3 7", "x (y) S" + rest, "7 (y) S y" + rest} {
		if got, ok := parse(text); ok {
			t.Errorf("parse(%q) = %+v; want nothing", text, got)
		}
	}
}

func TestDescendants(t *testing.T) {
	of := func(pid, parent int, zombie bool) Process { return Process{ID{PID: pid}, parent, zombie} }
	all := []Process{of(2, 1, false), of(3, 2, false), of(4, 3, true), of(5, 4, false), of(6, 9, false), of(9, 1, false)}
	found := Descendants(2, all)
	if len(found) != 2 || found[0].PID != 3 || found[1].PID != 5 {
		t.Errorf("Descendants = %+v; want 3 and 5", found)
	}
}

func TestFind(t *testing.T) {
	own, err := Find(os.Getpid())
	if err != nil || own.Parent != os.Getppid() || own.IsZombie {
		t.Errorf("Find = %+v, %v", own, err)
	}
	if lives, err := own.Lives(); err != nil || !lives {
		t.Errorf("Lives = %v, %v", lives, err)
	}
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if p, err := Find(c.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Find = %+v, %v; want an error", p, err)
	}
}

// TestKillOther checks that no process is killed for the number that it has.
func TestKillOther(t *testing.T) {
	c := exec.Command("sleep", "300")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Find(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := p.ID
	other.Began += "1"
	if err := errors.Join(other.Kill(), other.KillTree()); err != nil {
		t.Error(err)
	}
	if lives, err := p.Lives(); err != nil || !lives {
		t.Errorf("Lives = %v, %v", lives, err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("Wait = %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("Kill of a process that has ended: %v", err)
	}
}

// TestKillTree checks that stopped processes, and those of another session, are killed.
func TestKillTree(t *testing.T) {
	c := exec.Command("sh", "-c", `sleep 301 & echo $!; sh -c 'echo $$; kill -STOP $$' & setsid sh -c 'sleep 302 & echo $!; wait' & wait`)
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Process.Kill()
	var below []Process
	for lines := bufio.NewScanner(out); len(below) < 3 && lines.Scan(); {
		var pid int
		if _, err := fmt.Sscan(lines.Text(), &pid); err != nil {
			t.Fatal(err)
		}
		p, err := Find(pid)
		if err != nil {
			t.Fatal(err)
		}
		below = append(below, p)
	}
	p, err := Find(c.Process.Pid)
	if err == nil {
		err = unix.Kill(p.PID, unix.SIGSTOP)
	}
	if err == nil {
		err = p.KillTree()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range below {
		if lives, err := b.Lives(); err != nil || lives {
			t.Errorf("process %d lives: %v, %v", b.PID, lives, err)
		}
	}
	if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("Wait = %v", err)
	}
}
