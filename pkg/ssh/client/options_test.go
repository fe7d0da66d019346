// SPDX-License-Identifier: Apache-2.0

package client

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestParse has what launchers and file transfers call ssh with.
func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args string
		want options
	}{
		{"n1", options{host: "n1"}},
		{"n1 echo a b", options{host: "n1", command: "echo a b"}},
		{"n1 -- echo -n", options{host: "n1", command: "echo -n"}},
		{"n1 ls -l -x", options{host: "n1", command: "ls -l -x"}},
		{"-x n1 \"/usr/bin/hydra_pmi_proxy\" --control-port n0:1", options{host: "n1", command: "\"/usr/bin/hydra_pmi_proxy\" --control-port n0:1"}}, // MPICH
		{"-x n1 PATH=/a:$PATH ; export PATH ; orted -mca ess env", options{host: "n1", command: "PATH=/a:$PATH ; export PATH ; orted -mca ess env"}}, // Open MPI
		{"-l ada n1 rsync --server -e.L . /tmp", options{host: "n1", user: "ada", command: "rsync --server -e.L . /tmp"}},                            // rsync
		{"-x -oPermitLocalCommand=no -oClearAllForwardings=yes -oRemoteCommand=none -oRequestTTY=no -oForwardAgent=no -l ada -s -- n1 sftp", // scp, sftp
			options{host: "n1", user: "ada", command: "sftp", subsystem: true, terminal: -1}},
		{"-q -T -n -p 22 -i /key -F /none -o StrictHostKeyChecking=no -o BatchMode=yes ada@n1 true", options{host: "n1", user: "ada", terminal: -1, noInput: true, command: "true"}},
		{"-o ConnectTimeout=5 n1 -l bob true", options{host: "n1", user: "bob", timeout: 5 * time.Second, command: "true"}},
		{"-tt n1", options{host: "n1", terminal: 2}},
		{"-t -t n1", options{host: "n1", terminal: 2}},
		{"-qtlada n1", options{host: "n1", terminal: 1, user: "ada"}},
		{"ssh://ada@n1:22 true", options{host: "n1", user: "ada", command: "true"}},
		{"-oSendEnv=A* -oSetEnv=B=c n1", options{host: "n1", send: []string{"A*"}, set: []string{"B=c"}}},
		{"-V", options{version: true}},
		{"-N n1", options{host: "n1", noCommand: true}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			got, err := parse(strings.Fields(tt.args))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("parse = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for args, want := range map[string]string{
		"":                       "usage: ssh ",
		"-x":                     "usage: ssh ",
		"ada@":                   "usage: ssh ",
		"-l":                     "-l needs a value",
		"-Z n1":                  "unknown option -Z",
		"-L 1:a:2 n1":            "-L is not known to Brolga's client: install OpenSSH's in the image",
		"-f n1 true":             "-f is not known to Brolga's client: install OpenSSH's in the image",
		"-p x n1":                "-p x: bad port",
		"-o nonsense n1":         "-o nonsense: want KEY=VALUE",
		"-o ConnectTimeout=x n1": "-o ConnectTimeout=x: want a number of seconds",
		"-s n1":                  "-s needs the name of a subsystem",
		"ssh://:22 true":         "ssh://:22: want ssh://[USER@]HOST[:PORT]",
	} {
		if got, err := parse(strings.Fields(args)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("parse(%q) = %+v, %v; want %q", args, got, err, want)
		}
	}
}
