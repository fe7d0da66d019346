// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/squash"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/sandbox"
)

// storeLimits are what a conversion must leave of a store to others. Sizes are in
// bytes, and zero is no limit.
type storeLimits struct {
	store    int64 // all images
	share    store.Share
	squashfs int64 // convert.squashfs
}

// limitsOf returns the limits of the store st for a user.
func limitsOf(conf config.Config, st *store.Store, user string) (l storeLimits, err error) {
	whole, err := st.Capacity()
	if err != nil {
		return l, err
	}
	l.store, l.squashfs = conf.StoreMaxSize.Of(whole), int64(conf.Convert.Squashfs)
	if l.store > 0 {
		whole = l.store
	}
	l.share = store.Share{User: user, Size: conf.StoreUserShare.Of(whole), Keep: time.Duration(conf.StoreKeep)}
	return l, nil
}

// before refuses a conversion for which the user has no room, whatever its size.
func (l storeLimits) before(st *store.Store) error { return l.explain(st.CheckShare(l.share)) }

// most returns the size that the user's share allows for one image, or 0 where another
// limit is lower.
func (l storeLimits) most() int64 {
	if l.share.IsEndless() || l.share.Size >= l.squashfs {
		return 0
	}
	return l.share.Size
}

// after makes room for the result, which is not published yet.
func (l storeLimits) after(ctx context.Context, st *store.Store, draft *store.Draft) error {
	info, err := os.Stat(draft.Path())
	if err != nil {
		return err
	}
	return st.MakeRoom(ctx, l.share, info.Size())
}

const shareHint = "use images that are in the store, or ask an administrator to raise store_user_share in the site's configuration"

// explain names the setting that a user's images exceed.
func (l storeLimits) explain(err error) error {
	if errors.Is(err, store.ErrShare) {
		return fault.WithHint(err, shareHint)
	}
	return err
}

// limitImage ends a conversion as soon as its result is larger than most bytes, unless
// that is 0.
func limitImage(most int64) error {
	if most == 0 {
		return nil
	}
	return sandbox.Lower(unix.RLIMIT_FSIZE, uint64(most))
}

// explainSize names the user's share where an image exceeds most bytes.
func explainSize(err error, most int64) error {
	if most > 0 && errors.Is(err, squash.ErrTooLarge) {
		return fault.WithHint(fmt.Errorf("the image is larger than all that one user may have in the store, %s", budget.RoundedSize(most)), shareHint)
	}
	return err
}

// noteTooLarge lets a write that exceeds the limit for the size of files fail, where
// its signal would end this process without a word. tar2sqfs does not inherit that.
func noteTooLarge() { signal.Notify(make(chan os.Signal, 1), unix.SIGXFSZ) }
