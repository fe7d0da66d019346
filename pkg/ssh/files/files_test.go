// SPDX-License-Identifier: Apache-2.0

package files

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/ssh/realm"
)

func example() realm.Realm {
	return realm.Realm{
		Key: bytes.Repeat([]byte{7}, 32), User: "ada", First: 20000, Last: 29999,
		Nodes: []realm.Node{{Name: "n1", Address: "192.0.2.1"}, {Name: "n2.cluster.example", Address: "192.0.2.2"}},
	}
}

func TestWrite(t *testing.T) {
	r, dir := example(), t.TempDir()
	if err := Write(dir, r, "/connect"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ConfigFile, KnownHostsFile, KeyFile, nodesFile} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", name, st.Mode(), err)
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || bytes.Contains(text, r.Key) {
			t.Errorf("%s has the step's secret in it, or %v", name, err)
		}
	}
	peers, signer, err := Read(dir)
	if err != nil || peers.User != "ada" || len(peers.Nodes) != 2 {
		t.Fatalf("Read = %+v, %v", peers, err)
	}
	if got := fmt.Sprintf("%x", signer.PublicKey().Marshal()); !strings.HasSuffix(got, fmt.Sprintf("%x", r.ClientKey().Public())) {
		t.Errorf("Read: the key is %s", got)
	}
	for name, want := range map[string]bool{"n1": true, "N1": true, "n2": true, "n2.cluster.example": true, "192.0.2.2": true, "n3": false, "": false} {
		if peer, ok := peers.Find(name); ok != want || ok && (peer.Banner != r.Banner(peer.Names[0]) || !slices.Equal(peer.Ports, r.Ports(peer.Names[0]))) {
			t.Errorf("Find(%q) = %+v, %v; want %v", name, peer, ok, want)
		}
	}
}

func TestReadErrors(t *testing.T) {
	r, dir := example(), t.TempDir()
	if _, _, err := Read(dir); err == nil || !strings.HasPrefix(err.Error(), "read the nodes of the step: ") {
		t.Errorf("Read of nothing = %v", err)
	}
	if err := Write(dir, r, "/connect"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, KeyFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(dir); err == nil || !strings.HasPrefix(err.Error(), "read the step's key: ") {
		t.Errorf("Read without key = %v", err)
	}
	if err := Write(filepath.Join(dir, "none"), r, "/connect"); err == nil || !strings.HasPrefix(err.Error(), "write id_ed25519 for the clients: ") {
		t.Errorf("Write to nowhere = %v", err)
	}
}

// TestConfigForOpenSSH asks OpenSSH what it makes of the file, with more nodes than
// a line can name.
func TestConfigForOpenSSH(t *testing.T) {
	program, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("needs OpenSSH's client")
	}
	r, dir := example(), t.TempDir()
	for i := range 300 {
		r.Nodes = append(r.Nodes, realm.Node{Name: fmt.Sprintf("node%d.cluster.example", i), Address: fmt.Sprintf("198.51.100.%d", i)})
	}
	if err := Write(dir, r, "/connect"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if len(line) > 1023 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	for host, want := range map[string][]string{
		"node255": {
			"user ada", "hostkeyalias node255.cluster.example", "proxycommand /connect node255.cluster.example", "proxyusefdpass yes",
			"identityfile " + dir + "/id_ed25519", "userknownhostsfile " + dir + "/known_hosts", "stricthostkeychecking true", "identitiesonly yes",
			"forwardagent no", "forwardx11 no",
		},
		"198.51.100.7": {"user ada", "hostkeyalias node7.cluster.example"},
		"elsewhere":    {"stricthostkeychecking ask", "identitiesonly no"},
	} {
		out, err := exec.Command(program, "-G", "-F", filepath.Join(dir, ConfigFile), host).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh -G %s: %v: %s", host, err, out)
		}
		for _, line := range want {
			if !slices.Contains(strings.Split(string(out), "\n"), line) {
				t.Errorf("%s: OpenSSH does not see %q in %s", host, line, out)
			}
		}
		if host == "elsewhere" && strings.Contains(string(out), "proxycommand") {
			t.Errorf("%s: OpenSSH uses our command", host)
		}
	}
}
