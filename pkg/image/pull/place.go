// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
)

// place is where an image can be got from: a mirror, or the registry itself.
type place struct {
	host, repository string
	site             config.Registry
	user             string // whose credentials, "" for the first that there are
	last             bool   // there is no other to try after it

	once sync.Once
	reg  *registry
	err  error

	loginOnce sync.Once
	auth      authn.Authenticator
	authErr   error
}

// login finds, on first use, what to log in with. With a [*credential.HelperError] that
// is nothing.
func (pl *place) login(ctx context.Context, o Options) (authn.Authenticator, error) {
	pl.loginOnce.Do(func() { pl.auth, pl.authErr = o.credential(ctx, pl) })
	return pl.auth, pl.authErr
}

// placesOf returns where to look for an image, in this order.
func placesOf(o Options) []*place {
	var all []*place
	for _, mirror := range o.Registries.For(o.Ref.Registry).Mirrors {
		host, prefix := config.CutMirror(mirror)
		all = append(all, &place{host: host, repository: path.Join(prefix, o.Ref.Repository), site: o.Registries.For(host)})
	}
	return append(all, &place{
		host: o.Ref.Registry, repository: o.Ref.Repository, site: o.Registries.For(o.Ref.Registry), user: o.Ref.User, last: true,
	})
}

// registry connects on first use.
func (pl *place) registry(ctx context.Context, o Options) (*registry, error) {
	pl.once.Do(func() { pl.reg, pl.err = connect(ctx, o, pl) })
	return pl.reg, pl.err
}

// placeError is what went wrong at one place.
type placeError struct {
	place *place
	error
}

func (e placeError) Unwrap() error { return e.error }

// placesError is what went wrong at all places, the registry itself the last.
type placesError []placeError

func (e placesError) Error() string { return e[len(e)-1].Error() }

func (e placesError) Unwrap() error { return e[len(e)-1] }

// somewhere calls f for each place until one succeeds, and returns which.
func (p *puller) somewhere(ctx context.Context, places []*place, f func(*registry) error) (int, error) {
	var failed placesError
	for i, pl := range places {
		reg, err := pl.registry(ctx, p.o)
		if err == nil {
			err = f(reg)
		}
		if err == nil || ctx.Err() != nil || isLocal(err) {
			return i, err
		}
		failed = append(failed, placeError{pl, err})
	}
	return 0, failed
}

// isLocal says that another registry would not help.
func isLocal(err error) bool {
	var (
		path    *fs.PathError
		link    *os.LinkError
		problem certificateError
	)
	return errors.As(err, &path) || errors.As(err, &link) || errors.As(err, &problem) ||
		errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
