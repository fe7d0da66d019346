// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/brolga-hpc/brolga/pkg/slurm"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// message is what nodes tell each other: records, of which the first is the kind.
//
//	here    from the caller, first of all
//	ready   to the parent: this node and all below it are ready
//	go      to children: all nodes are
//	failed  to all: what is in [Failure]
//	ask     to children: say now how it stands
//	late    to an ancestor: which nodes below are there, and which are ready
type message []wire.Record

const (
	kindHere   = "here"
	kindReady  = "ready"
	kindGo     = "go"
	kindFailed = "failed"
	kindAsk    = "ask"
	kindLate   = "late"
)

func (m message) kind() string {
	if len(m) == 0 {
		return ""
	}
	return m[0].Key
}

func (m message) get(key string) string {
	for _, r := range m {
		if r.Key == key {
			return r.Value
		}
	}
	return ""
}

func newMessage(kind string, more ...wire.Record) message {
	return append(message{{Key: kind, Value: "1"}}, more...)
}

// Failure is why a barrier does not open. It is the same on all nodes that can
// speak to each other.
type Failure struct {
	// Node is the node that failed, Reason why, Hint what to do about it. Node is
	// empty if the time is over; then Reason is why nobody could be reached, if that
	// is so.
	Node         string
	Reason, Hint string
	// Silent are the nodes that nobody has heard of in that time, Unready those that
	// are there and not ready.
	Silent, Unready []string
	After           time.Duration

	own bool // it is this node's
}

// Error names the nodes.
func (f *Failure) Error() string {
	if f.Node != "" {
		return f.Node + ": " + f.Reason
	}
	var parts []string
	for _, p := range []struct {
		names []string
		text  string
	}{{f.Silent, "nothing was heard of"}, {f.Unready, "not ready:"}} {
		if len(p.names) > 0 {
			parts = append(parts, p.text+" "+slurm.Hostlist(p.names))
		}
	}
	text := fmt.Sprintf("after %s %s", f.After, strings.Join(parts, ", and "))
	if f.Reason != "" {
		text += " (" + f.Reason + ")"
	}
	return text
}

// maxText limits what one node says to all.
const maxText = 3000

func cut(text string) string {
	// NUL ends a record.
	return strings.ReplaceAll(text[:min(len(text), maxText)], "\x00", "?")
}

// encode writes a failure; sets are numbers because all nodes know the names.
func (b *Barrier) encode(f *Failure) message {
	if f.Node != "" {
		return newMessage(kindFailed,
			wire.Record{Key: "node", Value: strconv.Itoa(b.number(f.Node))},
			wire.Record{Key: "reason", Value: cut(f.Reason)}, wire.Record{Key: "hint", Value: cut(f.Hint)})
	}
	return newMessage(kindFailed,
		wire.Record{Key: "silent", Value: b.numbers(f.Silent).text()},
		wire.Record{Key: "unready", Value: b.numbers(f.Unready).text()},
		wire.Record{Key: "after", Value: f.After.String()}, wire.Record{Key: "reason", Value: cut(f.Reason)})
}

func (b *Barrier) decode(m message) (*Failure, error) {
	if m.get("node") != "" {
		i, err := strconv.Atoi(m.get("node"))
		if err != nil || i < 0 || i >= b.tree.size {
			return nil, fmt.Errorf("%q is no node", m.get("node"))
		}
		return &Failure{Node: b.config.Nodes[i].Name, Reason: cut(m.get("reason")), Hint: cut(m.get("hint"))}, nil
	}
	silent, err := b.tree.parseSet(m.get("silent"))
	if err != nil {
		return nil, err
	}
	unready, err := b.tree.parseSet(m.get("unready"))
	if err != nil {
		return nil, err
	}
	after, err := time.ParseDuration(m.get("after"))
	return &Failure{Silent: b.names(silent), Unready: b.names(unready), After: after, Reason: cut(m.get("reason"))}, err
}

func (b *Barrier) number(name string) int {
	for i, n := range b.config.Nodes {
		if n.Name == name {
			return i
		}
	}
	return b.config.Own
}

func (b *Barrier) numbers(names []string) set {
	s := set{}
	for _, name := range names {
		s[b.number(name)] = true
	}
	return s
}

func (b *Barrier) names(s set) []string {
	var names []string
	for i, n := range b.config.Nodes {
		if s[i] {
			names = append(names, n.Name)
		}
	}
	return names
}
