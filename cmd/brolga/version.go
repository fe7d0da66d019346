// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/brolga-hpc/brolga/pkg/config"
)

func runVersion(_ context.Context, v verb, args []string) error {
	if err := v.parse(v.flags(), args, 0, 0); err != nil {
		return err
	}
	fmt.Println("brolga", config.Version)
	return nil
}
