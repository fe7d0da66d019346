// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"

	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// Open returns the image that r names, wherever it is. The caller closes it.
// What is said of [Get] is true of Open.
func Open(ctx context.Context, s Source, r ref.Ref) (store.Image, error) {
	if r.IsLocal() && r.Digest == "" {
		// Nobody has looked yet whether the file is the one that the cache knows.
		g := getter{Source: s, ref: r}
		if err := g.pull(ctx, r); err != nil {
			return store.Image{}, err
		}
	}
	return Get(ctx, s, r)
}
