// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// step makes the nodes of one step, each with an address of its own.
func step(t testing.TB, size, fanout int, timeout time.Duration) []Config {
	t.Helper()
	// Others may run the same test on this machine.
	return nodesOf(fmt.Sprintf("%d %s", os.Getpid(), t.Name()), size, fanout, timeout)
}

func nodesOf(name string, size, fanout int, timeout time.Duration) []Config {
	key := fmt.Appendf(nil, "%-32.32s", name)
	var nodes []slurm.Node
	for i := range size {
		nodes = append(nodes, slurm.Node{Name: fmt.Sprintf("n%d", i), Address: fmt.Sprintf("127.77.%d.%d", i/250, i%250+1)})
	}
	var all []Config
	for i := range size {
		all = append(all, Config{
			Nodes: nodes, Own: i, Key: key, Fanout: fanout, Timeout: timeout,
			Ports: Ports{20000, 29999}, Listen: []string{nodes[i].Address},
		})
	}
	return all
}

// join starts the nodes that are not nil in what f returns.
func join(t testing.TB, configs []Config, without ...int) map[int]*Barrier {
	t.Helper()
	all := map[int]*Barrier{}
	for i, c := range configs {
		if !slices.Contains(without, i) {
			all[i] = Join(c)
		}
	}
	t.Cleanup(func() {
		for _, b := range all {
			b.Close()
		}
	})
	return all
}

// result waits for what a node learns.
func result(t testing.TB, b *Barrier) error {
	t.Helper()
	select {
	case <-b.Done():
		return b.Err()
	case <-time.After(50 * time.Second):
		return fmt.Errorf("node %d waits forever", b.config.Own)
	}
}

func expectAll(t testing.TB, all map[int]*Barrier, want string) {
	t.Helper()
	for i, b := range all {
		err := result(t, b)
		if got := fmt.Sprint(err); got != want {
			t.Errorf("node %d: %s; want %s", i, got, want)
		}
	}
}

func TestOpensForAll(t *testing.T) {
	for _, tt := range []struct{ size, fanout int }{{1, 16}, {2, 16}, {4, 16}, {4, 1}, {18, 16}, {40, 2}} {
		t.Run(fmt.Sprintf("%d nodes by %d", tt.size, tt.fanout), func(t *testing.T) {
			all := join(t, step(t, tt.size, tt.fanout, time.Minute))
			last := tt.size / 2
			for i, b := range all {
				if i != last {
					b.Ready()
				}
			}
			time.Sleep(20 * time.Millisecond) // long enough for a mistake to show
			for i, b := range all {
				select {
				case <-b.Done():
					t.Fatalf("node %d goes on without node %d: %v", i, last, b.Err())
				default:
				}
			}
			all[last].Ready()
			expectAll(t, all, "<nil>")
		})
	}
}

// TestLateNodes checks that it does not matter when nodes start.
func TestLateNodes(t *testing.T) {
	configs := step(t, 7, 2, time.Minute)
	all := map[int]*Barrier{}
	for _, i := range []int{6, 5, 2, 4, 3, 0, 1} {
		all[i] = Join(configs[i])
		defer all[i].Close()
		all[i].Ready()
		time.Sleep(10 * time.Millisecond)
	}
	expectAll(t, all, "<nil>")
}

// TestTraffic simulates a large step: what a node has to do does not grow with it.
func TestTraffic(t *testing.T) {
	const size, fanout = 1024, 16
	began := time.Now()
	all := join(t, step(t, size, fanout, time.Minute))
	for _, b := range all {
		b.Ready()
	}
	expectAll(t, all, "<nil>")
	t.Logf("%d nodes in %v", size, time.Since(began))
	total := int64(0)
	for i, b := range all {
		messages, connections := b.Traffic()
		// "here" and "ready" to the parent, and "go" to each child.
		if messages > 2+fanout || connections > 1+fanout {
			t.Errorf("node %d: %d messages, %d connections", i, messages, connections)
		}
		total += messages
	}
	if total != 3*(size-1) {
		t.Errorf("%d messages; want 3 for each node but the root", total)
	}
}

func TestFailureOfOne(t *testing.T) {
	for _, failing := range []int{0, 1, 5, 12} {
		t.Run(fmt.Sprint(failing), func(t *testing.T) {
			all := join(t, step(t, 13, 3, time.Minute))
			for i, b := range all {
				if i%2 == 0 && i != failing {
					b.Ready() // others are not even ready
				}
			}
			all[failing].Fail("no such image", "look again")
			expectAll(t, all, fmt.Sprintf("n%d: no such image", failing))
			for i, b := range all {
				var f *Failure
				if !errors.As(b.Err(), &f) || f.Hint != "look again" || f.Own() != (i == failing) {
					t.Errorf("node %d: %+v", i, f)
				}
			}
		})
	}
}

// TestNoPort checks that a node which cannot be called tells those that call it, be
// they there before it or not.
func TestNoPort(t *testing.T) {
	for _, tt := range []struct{ size, fanout, portless int }{{4, 16, 0}, {7, 2, 0}, {7, 2, 1}, {13, 3, 3}} {
		t.Run(fmt.Sprintf("node %d of %d by %d", tt.portless, tt.size, tt.fanout), func(t *testing.T) {
			t.Parallel()
			configs := step(t, tt.size, tt.fanout, time.Minute)
			takePorts(t, configs[tt.portless])
			all := join(t, configs)
			for _, b := range all {
				b.Ready()
			}
			expectAll(t, all, fmt.Sprintf("n%d: listen for other nodes: no port that it may have in 20000-29999 is free", tt.portless))
			for i, b := range all {
				var f *Failure
				if !errors.As(b.Err(), &f) || !strings.Contains(f.Hint, "sync.ports") {
					t.Errorf("node %d: %+v", i, f)
				}
			}
		})
	}
}

// takePorts listens wherever a node may.
func takePorts(t testing.TB, c Config) {
	t.Helper()
	for _, port := range newIdentity(c).ports(c.Ports, c.Own) {
		all, err := listenOn(c.Listen, port)
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		for _, l := range all {
			t.Cleanup(func() { l.Close() })
		}
	}
}

// TestFailureBeforeOthersStart checks that a failure is kept for nodes that start
// later, although each node is gone when it may go.
func TestFailureBeforeOthersStart(t *testing.T) {
	configs := step(t, 4, 2, time.Minute)
	var wg sync.WaitGroup
	for _, i := range []int{1, 3, 0, 2} {
		m := Join(configs[i])
		if i == 1 {
			m.Fail("broken", "")
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer m.Close()
			if err := result(t, m); err == nil || err.Error() != "n1: broken" {
				t.Errorf("node %d: %v", i, err)
			}
		}()
		time.Sleep(30 * time.Millisecond)
	}
	wg.Wait()
}

func TestSilentNodes(t *testing.T) {
	const size = 13 // by 3: 0; 1 2 3; 4 5 6, 7 8 9, 10 11 12
	for _, tt := range []struct {
		name            string
		silent, unready []int
		want            string
	}{
		{"a leaf", []int{7}, nil, "nothing was heard of n7"},
		{"a node with others below", []int{2}, nil, "nothing was heard of n2"},
		{"several", []int{2, 8, 9, 12}, nil, "nothing was heard of n[2,8-9,12]"},
		{"one is not ready", nil, []int{5}, "not ready: n5"},
		{"both", []int{1}, []int{0, 4, 12}, "nothing was heard of n1, and not ready: n[0,4,12]"},
		{"nobody is ready", []int{3}, []int{0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12}, "nothing was heard of n3, and not ready: n[0-2,4-12]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			all := join(t, step(t, size, 3, 400*time.Millisecond), tt.silent...)
			for i, b := range all {
				if !slices.Contains(tt.unready, i) {
					b.Ready()
				}
			}
			expectAll(t, all, "after 400ms "+tt.want)
		})
	}
}

// TestSilentRoot checks that nodes which have nobody to ask end, too.
func TestSilentRoot(t *testing.T) {
	t.Parallel()
	all := join(t, step(t, 4, 3, 200*time.Millisecond), 0)
	for _, b := range all {
		b.Ready()
	}
	for i, b := range all {
		if err := result(t, b); err == nil || !strings.HasPrefix(err.Error(), "after 200ms nothing was heard of n0 (dial tcp 127.77.0.1:") {
			t.Errorf("node %d: %v; want the root and why it is not reached", i, err)
		}
	}
}

// TestOneNodeIsOutOfTime checks that a node with less time speaks for all.
func TestOneNodeIsOutOfTime(t *testing.T) {
	configs := step(t, 7, 2, time.Minute)
	configs[4].Timeout = 100 * time.Millisecond
	all := join(t, configs, 6)
	for _, b := range all {
		b.Ready()
	}
	all[4].Ready()
	for i, b := range all {
		if err := result(t, b); err == nil || !strings.Contains(err.Error(), "nothing was heard of n6") {
			t.Errorf("node %d: %v", i, err)
		}
	}
}

// TestNodeDies checks that the end of a helper is noticed by its connections.
func TestNodeDies(t *testing.T) {
	for _, dying := range []int{0, 1, 6} {
		t.Run(fmt.Sprint(dying), func(t *testing.T) {
			all := join(t, step(t, 7, 2, time.Minute))
			for i, b := range all {
				if i != 3 {
					b.Ready()
				}
			}
			for _, b := range all { // until all have called
				for {
					if _, n := b.Traffic(); n > int64(len(b.tree.children(b.config.Own))) || b.config.Own == 0 && n > 1 {
						break
					}
					time.Sleep(time.Millisecond)
				}
			}
			all[dying].Close()
			delete(all, dying)
			expectAll(t, all, fmt.Sprintf("n%d: it ended before all nodes were ready", dying))
		})
	}
}

// BenchmarkBarrier is the time from nothing to "all are ready", with all nodes in
// this process.
func BenchmarkBarrier(b *testing.B) {
	for _, size := range []int{4, 64, 1024} {
		b.Run(fmt.Sprintf("%d-nodes", size), func(b *testing.B) {
			configs := step(b, size, 16, time.Minute)
			for b.Loop() {
				var wg sync.WaitGroup
				for _, c := range configs {
					wg.Add(1)
					go func() {
						defer wg.Done()
						if err := takePart(c); err != nil {
							b.Error(err)
						}
					}()
				}
				wg.Wait()
			}
		})
	}
}

func takePart(c Config) error {
	m := Join(c)
	defer m.Close()
	m.Ready()
	<-m.Done()
	return m.Err()
}

// BenchmarkProcesses is the same with a process for each node, their start included.
func BenchmarkProcesses(b *testing.B) {
	for _, size := range []int{4, 64, 1024} {
		b.Run(fmt.Sprintf("%d-nodes", size), func(b *testing.B) {
			for b.Loop() {
				var wg sync.WaitGroup
				for i := range size {
					wg.Add(1)
					go func() {
						defer wg.Done()
						p, err := os.StartProcess("/proc/self/exe", []string{"member", strconv.Itoa(i), strconv.Itoa(size)}, &os.ProcAttr{Files: []*os.File{nil, nil, os.Stderr}})
						if err != nil {
							b.Error(err)
							return
						}
						if state, err := p.Wait(); err != nil || !state.Success() {
							b.Errorf("node %d: %v, %v", i, state, err)
						}
					}()
				}
				wg.Wait()
			}
		})
	}
}

// TestMain makes the test's program one node for BenchmarkProcesses.
func TestMain(m *testing.M) {
	if os.Args[0] != "member" {
		os.Exit(m.Run())
	}
	own, err1 := strconv.Atoi(os.Args[1])
	size, err2 := strconv.Atoi(os.Args[2])
	err := errors.Join(err1, err2)
	if err == nil {
		err = takePart(nodesOf("processes", size, 16, time.Minute)[own])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
