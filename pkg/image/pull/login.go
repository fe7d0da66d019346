// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/brolga-hpc/brolga/pkg/image/credential"
)

// Login checks that a registry accepts a credential.
func Login(ctx context.Context, o Options, c credential.Credential) error {
	pl := &place{host: o.Ref.Registry, site: o.Registries.For(o.Ref.Registry), last: true}
	err := login(ctx, o, pl, c)
	var status *transport.Error
	if errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden) {
		err = errors.New("the registry does not accept this user and password")
	} else if err != nil {
		err = explain(placeError{pl, err}, o)
	}
	if err != nil {
		return fmt.Errorf("log in to %s: %w", pl.host, err)
	}
	return nil
}

func login(ctx context.Context, o Options, pl *place, c credential.Credential) error {
	if err := pl.site.Refusal(); err != nil {
		return err
	}
	reg, err := name.NewRegistry(pl.host, nameOptions(pl.site)...)
	if err != nil {
		return err
	}
	base, err := o.transport(pl)
	if err != nil {
		return err
	}
	rt, err := transport.NewWithContext(ctx, reg, authenticator(c), base, nil)
	if err != nil {
		return err
	}
	r := &registry{client: &http.Client{Transport: rt}, base: fmt.Sprintf("%s://%s/v2/", reg.Scheme(), reg.RegistryStr())}
	resp, err := r.do(ctx, http.MethodGet, "", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
