// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/slot"
)

// inTurn runs a conversion when the user and the node have a slot for it. It waits no
// longer than until another one has stored the image, unless the conversion must run
// also then.
//
// The user's slot comes first: of one who wants many images only convert.per_user wait
// for the node. What the user can delay comes before the node's slot. While a process of this node makes the same image there is no need for a
// slot of the node's, where others wait.
func (g *getter) inTurn(ctx context.Context, digest string, must bool, c command.Cmd) error {
	began := time.Now()
	o := slot.Options{Done: func() bool { return !must && g.stores.Has(digest) }}
	limits := g.Config.Convert
	take := func(name string, count int) (*slot.Slot, error) {
		return slot.Take(ctx, filepath.Join(g.Config.RunDir, "convert"), name, count, o)
	}
	own, err := take(fmt.Sprintf("user-%d", g.User.UID), limits.PerUser)
	var limit MakeCgroup
	if err == nil {
		defer own.Close()
		limit, err = g.limits()
	}
	if err == nil {
		o.Ready = func() bool { return !g.isConverting(digest) }
		var node *slot.Slot
		if node, err = take("node", limits.PerNode); err == nil {
			defer node.Close()
			g.tellWait(began)
			c.Files = slices.Concat(c.Files, []*os.File{own.File, node.File}) // it has them until it ends
			return g.limited(ctx, limit, fmt.Sprintf("brolga-convert-%d", node.Number), c)
		}
	}
	g.tellWait(began)
	if errors.Is(err, slot.ErrDone) {
		return nil
	}
	return fmt.Errorf("wait for other conversions: %w", err)
}

// shortWait is not worth a word.
const shortWait = 200 * time.Millisecond

func (g *getter) tellWait(began time.Time) {
	if took := time.Since(began); took > shortWait && g.Tell != nil {
		g.Tell(fmt.Sprintf("waited %.1f s for other conversions: the site allows %d on a node, %d of them for the same user",
			took.Seconds(), g.Config.Convert.PerNode, g.Config.Convert.PerUser))
	}
}

func (g *getter) isConverting(digest string) bool {
	for _, s := range g.stores {
		if s.IsConverting(digest) {
			return true
		}
	}
	return false
}

// limits returns what makes a cgroup for a conversion, or nil. A store in memory would
// count, too, with images of any size: there only the processes have limits.
func (g *getter) limits() (MakeCgroup, error) {
	if st, err := g.stores.ForNew(); err != nil || g.Limits == nil || st.IsInMemory() {
		return nil, nil //nolint:nilerr // the conversion itself tells that there is no store
	}
	return g.Limits()
}

// limited runs a conversion in a cgroup of its own, if the node has some, and removes
// what is left of it if it was killed.
func (g *getter) limited(ctx context.Context, limit MakeCgroup, name string, c command.Cmd) error {
	var group Cgroup
	if limit != nil {
		var err error
		if group, err = limit(name, 2*int64(g.Config.Convert.Memory)); err != nil { // of two processes
			return fmt.Errorf("make a cgroup for the conversion: %w", err)
		}
	}
	if group == nil {
		return g.tidied(g.client(ctx, c))
	}
	c.Join = group.Join
	err := g.client(ctx, c)
	if killed := group.Close(); err != nil && killed {
		err = fault.WithHint(errors.New("the image needs more memory than the site allows"), "an administrator can raise convert.memory in the site's configuration")
	}
	return g.tidied(err)
}

// tidied removes what a conversion has left that was killed. One that failed has
// removed it.
func (g *getter) tidied(err error) error {
	var told command.Told
	if err == nil || errors.As(err, &told) {
		return err
	}
	for _, s := range g.stores {
		_ = s.Tidy() // the next conversion does it again
	}
	return err
}
