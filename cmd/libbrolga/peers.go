// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// maxAddresses limits the variable with the addresses: the kernel takes 128 KiB
// (execve(2)). Lists of addresses are short, unless there is no order in them.
const maxAddresses = 120 << 10

// share makes the secret of the step that srun is about to start, and asks the
// shim to come back when the step has its nodes. Nodes that cannot read their
// configuration find in the step how to tell the others.
func share(answer []wire.Record, r request.Request) ([]wire.Record, error) {
	secret, err := slurm.NewSecret()
	if err != nil {
		return nil, err
	}
	if r.Sync != nil {
		answer = append(answer, wire.Record{Key: "env", Value: slurm.SyncVariable + "=" + r.Sync.String()})
	}
	return append(answer,
		wire.Record{Key: "env", Value: slurm.SecretVariable + "=" + secret.Reveal()},
		wire.Record{Key: "peers", Value: "1"}), nil
}

// launch returns the variable that tells the nodes of a step where the others are.
// Identity: the user, in srun.
func launch(records []wire.Record) ([]wire.Record, error) {
	list, name, addresses := "", "", map[string]string{}
	for _, r := range records {
		switch r.Key {
		case "node_list":
			list = r.Value
		case "node_name":
			name = r.Value
		case "node_address":
			addresses[name] = r.Value
		}
	}
	text, err := slurm.Addresses(list, addresses)
	if err != nil {
		return nil, fmt.Errorf("find the nodes of the step: %w", err)
	}
	if len(text) > maxAddresses {
		return nil, fmt.Errorf("the addresses of the job's nodes take more than %d KiB", maxAddresses>>10)
	}
	return []wire.Record{{Key: "env", Value: slurm.AddressesVariable + "=" + text}}, nil
}
