// SPDX-License-Identifier: Apache-2.0

// Package expire is what collecting garbage in a store and in a user's cache have
// in common: which images go, and how that is told.
//
// Images are looked at in the order of their last use, the one that was not used
// for the longest time first.
package expire

import "time"

// LeftAge is how old something unfinished is when who began it cannot be alive
// any more.
const LeftAge = 24 * time.Hour

// Limits say which images go. With both limits an image goes only where both
// allow it; without any none does, but what killed processes left.
type Limits struct {
	MaxSize int64         // stop when the images are no larger; negative is no limit
	Unused  time.Duration // only images that were not used for that long; 0 is all
	DryRun  bool          // only say it
}

// Keep says whether an image that was last used at that time stays, and with it
// all that were used later. total is the size of what there is.
func (l Limits) Keep(total int64, used time.Time) bool {
	switch {
	case l.MaxSize < 0 && l.Unused == 0:
		return true
	case l.MaxSize >= 0 && total <= l.MaxSize:
		return true
	}
	return time.Since(used) < l.Unused
}

// Removed is something that was removed, or would be.
type Removed struct {
	What string // such as "image" or "unfinished image"
	Name string
	Size int64
}
