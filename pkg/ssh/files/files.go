// SPDX-License-Identifier: Apache-2.0

// Package files writes and reads what SSH clients in a container need: the step's
// key, the keys of its nodes, and a configuration for OpenSSH.
package files

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/brolga-hpc/brolga/pkg/ssh/dial"
	"github.com/brolga-hpc/brolga/pkg/ssh/realm"
	"github.com/brolga-hpc/brolga/pkg/ssh/setup"
)

// The files that clients read, in a directory of the container.
const (
	ConfigFile     = setup.ConfigFile // ssh_config(5)
	KnownHostsFile = "known_hosts"    // sshd(8), SSH_KNOWN_HOSTS FILE FORMAT
	KeyFile        = "id_ed25519"
	nodesFile      = "nodes.json"
)

// Peers is what our own client knows: all that is in the realm less its secret.
type Peers struct {
	User  string `json:"user"`
	Nodes []Peer `json:"nodes"`
}

// Peer is one node for clients.
type Peer struct {
	dial.Peer
	// HostKey is a line as in authorized_keys.
	HostKey string `json:"host_key"`
}

// Find returns the node that has the name.
func (p Peers) Find(name string) (Peer, bool) {
	for _, peer := range p.Nodes {
		for _, n := range peer.Names {
			if strings.EqualFold(n, name) {
				return peer, true
			}
		}
	}
	return Peer{}, false
}

// Read reads what [Write] wrote into dir.
func Read(dir string) (Peers, ssh.Signer, error) {
	var peers Peers
	text, err := os.ReadFile(filepath.Join(dir, nodesFile))
	if err == nil {
		err = json.Unmarshal(text, &peers)
	}
	if err != nil {
		return Peers{}, nil, fmt.Errorf("read the nodes of the step: %w", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		return Peers{}, nil, fmt.Errorf("read the step's key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return Peers{}, nil, fmt.Errorf("read the step's key: %w", err)
	}
	return peers, signer, nil
}

// Write writes the files for clients into dir, readable by their owner alone.
// Connect is the command that opens a connection to the node whose name follows.
func Write(dir string, r realm.Realm, connect string) error {
	peers, err := peersOf(r)
	if err != nil {
		return err
	}
	nodes, err := json.Marshal(peers)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(r.ClientKey(), "brolga")
	if err != nil {
		return fmt.Errorf("encode the step's key: %w", err)
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{KeyFile, pem.EncodeToMemory(block)},
		{KnownHostsFile, []byte(peers.knownHosts())},
		{nodesFile, nodes},
		{ConfigFile, []byte(peers.config(dir, connect))},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, 0o600); err != nil {
			return fmt.Errorf("write %s for the clients: %w", f.name, err)
		}
	}
	return nil
}

func peersOf(r realm.Realm) (Peers, error) {
	peers := Peers{User: r.User}
	aliases := r.Aliases()
	for i, n := range r.Nodes {
		key, err := ssh.NewSignerFromKey(r.HostKey(n.Name))
		if err != nil {
			return Peers{}, fmt.Errorf("make the key of node %s: %w", n.Name, err)
		}
		peers.Nodes = append(peers.Nodes, Peer{
			Peer:    dial.Peer{Names: aliases[i], Address: n.Address, Ports: r.Ports(n.Name), Banner: r.Banner(n.Name)},
			HostKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))),
		})
	}
	return peers, nil
}

func (p Peers) knownHosts() string {
	var text strings.Builder
	for _, n := range p.Nodes {
		fmt.Fprintf(&text, "%s %s\n", n.Names[0], n.HostKey)
	}
	return text.String()
}

// lineLimit keeps lines below what OpenSSH before 7.8 takes (1024 bytes).
const lineLimit = 900

// config returns the text for OpenSSH's clients, of any version since 6.5. It says
// nothing of other hosts. Each node has a few lines of its own; those that are alike
// follow once for as many nodes as a line can name.
func (p Peers) config(dir, connect string) string {
	var text, names strings.Builder
	common := func() {
		if names.Len() == 0 {
			return
		}
		fmt.Fprintf(&text, "Host%s\n", &names)
		for _, line := range []string{
			"User " + p.User,
			"IdentityFile " + filepath.Join(dir, KeyFile),
			"IdentitiesOnly yes",
			"UserKnownHostsFile " + filepath.Join(dir, KnownHostsFile),
			"StrictHostKeyChecking yes",
			"CheckHostIP no",
			"PreferredAuthentications publickey",
			"ProxyUseFdpass yes",
			"ForwardAgent no",
			"ForwardX11 no",
		} {
			fmt.Fprintf(&text, "  %s\n", line)
		}
		names.Reset()
	}
	for _, n := range p.Nodes {
		all := strings.Join(n.Names, " ")
		fmt.Fprintf(&text, "Host %s\n  HostKeyAlias %s\n  ProxyCommand %s %s\n", all, n.Names[0], connect, n.Names[0])
		if names.Len()+len(all) > lineLimit {
			common()
		}
		fmt.Fprintf(&names, " %s", all)
	}
	common()
	return text.String()
}
