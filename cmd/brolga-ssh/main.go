// SPDX-License-Identifier: Apache-2.0

// Command brolga-ssh is all of SSH between the containers of a step
// (docs/ssh.md). It runs in the container, as the job's user, and needs nothing of
// the image.
//
//	brolga-ssh serve         the server; the helper starts it, see pkg/ssh/setup
//	brolga-ssh connect NODE  open a connection to a node's server and pass it to
//	                         OpenSSH's client (ssh_config(5), ProxyUseFdpass)
//	ssh [OPTION]... HOST [COMMAND]...
//	                         the client, in images that have none
//
// It is a program of its own: nothing else of Brolga links SSH.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/ssh/client"
	"github.com/brolga-hpc/brolga/pkg/ssh/dial"
	"github.com/brolga-hpc/brolga/pkg/ssh/files"
	"github.com/brolga-hpc/brolga/pkg/ssh/setup"
)

// patience is how long a client waits for a server that is not there yet.
const patience = 30 * time.Second

// exitSSH is how ssh(1) ends when an error is its own.
const exitSSH = 255

func main() {
	args := os.Args[1:]
	switch {
	case filepath.Base(os.Args[0]) == "ssh":
		os.Exit(client.Main(args, client.Place{Dir: setup.Dir, Version: "Brolga " + config.Version, Patience: patience}))
	case len(args) == 1 && args[0] == "serve":
		end(serve())
	case len(args) == 2 && args[0] == "connect":
		end(connect(args[1]))
	}
	fmt.Fprintln(os.Stderr, "brolga-ssh: error: Brolga starts this program; users want srun --container-ssh")
	os.Exit(2)
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "brolga-ssh: error:", err)
		os.Exit(exitSSH)
	}
	os.Exit(0)
}

// connect passes a connection to the process at the other end of standard output.
func connect(node string) error {
	peers, _, err := files.Read(setup.Dir)
	if err != nil {
		return err
	}
	peer, ok := peers.Find(node)
	if !ok {
		return fmt.Errorf("%s is not a node of this step", node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := dial.Dial(ctx, peer.Peer)
	if err != nil {
		return err
	}
	return dial.Pass(conn, int(os.Stdout.Fd()))
}
