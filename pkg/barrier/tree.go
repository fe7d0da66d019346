// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"fmt"
	"strconv"

	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// tree is the shape of a barrier: node 0 is the root, and the children of node i
// are fanout*i+1 and following. All nodes know it without asking.
type tree struct{ size, fanout int }

func (t tree) parent(i int) int { return (i - 1) / t.fanout }

func (t tree) children(i int) []int {
	var all []int
	for c := t.fanout*i + 1; c <= t.fanout*(i+1) && c < t.size; c++ {
		all = append(all, c)
	}
	return all
}

// height is the number of levels below a node.
func (t tree) height(i int) int {
	h := 0
	for c := t.fanout*i + 1; c < t.size; c = t.fanout*c + 1 {
		h++
	}
	return h
}

// isBelow tells whether node i is a descendant of another.
func (t tree) isBelow(i, other int) bool {
	for i > other && i < t.size {
		i = t.parent(i)
		if i == other {
			return true
		}
	}
	return false
}

// ancestors are the nodes above a node, its parent first.
func (t tree) ancestors(i int) []int {
	var all []int
	for i > 0 {
		i = t.parent(i)
		all = append(all, i)
	}
	return all
}

// set is a set of nodes.
type set map[int]bool

func (s set) add(other set) {
	for i := range other {
		s[i] = true
	}
}

// text writes a set as Slurm does: "[0-3,7]".
func (s set) text() string {
	var numbers []string
	for i, n := 0, len(s); n > 0; i++ {
		if s[i] {
			numbers = append(numbers, strconv.Itoa(i))
			n--
		}
	}
	return slurm.Hostlist(numbers)
}

func (t tree) parseSet(text string) (set, error) {
	numbers, err := slurm.ParseHostlist(text)
	if err != nil {
		return nil, err
	}
	s := set{}
	for _, number := range numbers {
		i, err := strconv.Atoi(number)
		if err != nil || i < 0 || i >= t.size {
			return nil, fmt.Errorf("%q is no node", number)
		}
		s[i] = true
	}
	return s, nil
}
