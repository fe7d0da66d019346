// SPDX-License-Identifier: Apache-2.0

package step

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/account"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// message joins records as the shim does.
func message(records ...string) []byte { return []byte(strings.Join(records, "\x00") + "\x00") }

// TestParse reads the message that the tests of the shim read as well.
func TestParse(t *testing.T) {
	text, err := os.ReadFile("../../spank/test/testdata/call.records")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	given := [][2]string{{"container-image", "ubuntu:24.04"}, {"container-writable", ""}}
	if got.ConfigPath != "/etc/brolga/brolga.toml" || !slices.Equal(got.Given, given) || got.Step.JobID != 5 || len(got.Step.Env) != 2 {
		t.Errorf("Parse = %+v", got)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct {
		name    string
		message []byte
		err     string
	}{
		{"cut off", []byte("job=5"), "internal error: message of the plugin: record 1 is cut off"},
		{"not a number", message("job=x"), `internal error: record job="x" is not a number`},
		{"another release", message("abi=7"), "the plugin speaks version 7 of the protocol, the rest of Brolga on this node 2"},
		{"group without name", message("named_group=5"), "internal error: named_group 5 without group_name"},
		{"group without number", message("named_group=x", "group_name=staff"), `internal error: record named_group="x" is not a number`},
		{"option at the end", message("option=container-image"), "internal error: option container-image without value"},
		{"option without value", message("option=container-image", "option=container-workdir", "value=/"), "internal error: option container-image without value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := Parse(tt.message); err == nil || err.Error() != tt.err {
				t.Errorf("Parse = %+v, %v; want the error %q", got, err, tt.err)
			}
		})
	}
}

func TestLoadConfig(t *testing.T) {
	closed := &fs.PathError{Op: "open", Path: "/a.toml", Err: fs.ErrPermission}
	_, _, err := Call{ConfigPath: "/a.toml"}.LoadConfig(func(string) ([]byte, error) { return nil, closed })
	const want = "error: read site configuration: open /a.toml: permission denied\nhint: tell the administrator of this cluster\n"
	if err == nil || fault.Format("", err) != want {
		t.Errorf("LoadConfig = %v; want %s", err, want)
	}
}

func TestResolve(t *testing.T) {
	c, err := Parse(message("uid=1000", "gid=1000", "env=BROLGA_CONTAINER_WORKDIR=/w", "option=container-image", "value=ubuntu"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Resolve(config.Default())
	if err != nil || r.Image.String() != "docker.io/library/ubuntu:latest" || r.Workdir != "/w" || r.UID != 1000 {
		t.Errorf("Resolve = %+v, %v", r, err)
	}
	c.Given = append(c.Given, [2]string{"container-nonsense", ""})
	if _, err := c.Resolve(config.Default()); err == nil || !strings.Contains(err.Error(), "unknown option --container-nonsense") {
		t.Errorf("Resolve = %v; want the unknown option named", err)
	}
}

// TestABI checks that the helper knows the number that the shim says.
func TestABI(t *testing.T) {
	header, err := os.ReadFile("../../spank/brolga.h")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^#define BROLGA_ABI (\d+)$`).FindSubmatch(header)
	if found == nil {
		t.Fatal("brolga.h defines no BROLGA_ABI")
	}
	if _, err := Parse(message("abi=" + string(found[1]))); err != nil {
		t.Errorf("Parse = %v; want the number of brolga.h accepted", err)
	}
}

// site writes a configuration that only the user of the test can change.
func site(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "brolga.toml")
	if err := os.WriteFile(path, []byte("store_owner = 'images'"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRead checks what the helper makes of the shim's message.
func TestRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: reads a configuration that is root's alone")
	}
	path := site(t)
	text := message("abi=2", "config="+path, "job=5", "uid=1000", "gid=1001", "group=27", "account=ada", "gecos=Ada", "home=/home/ada",
		"named_group=1001", "group_name=staff", "env=A=b\nc", "option=container-image", "value=ubuntu")
	// The helper is started before the shim knows all facts.
	for _, r := range []io.Reader{bytes.NewReader(text), io.MultiReader(bytes.NewReader(text[:9]), bytes.NewReader(text[9:]))} {
		got, err := Read(r)
		if err != nil {
			t.Fatal(err)
		}
		if got.ConfigPath != path || got.Config.StoreOwner != "images" || got.Request.Step != "5.0" || !slices.Equal(got.Env, []string{"A=b\nc"}) {
			t.Errorf("Read = %+v", got)
		}
		if want := (identity.User{Name: "ada", UID: 1000, GID: 1001, Gecos: "Ada", Home: "/home/ada", Shell: "/bin/sh"}); !reflect.DeepEqual(got.Account, want) {
			t.Errorf("Read: account = %+v; want %+v", got.Account, want)
		}
		if want := []account.Group{{Name: "staff", GID: 1001}}; !slices.Equal(got.Groups, want) {
			t.Errorf("Read: groups = %+v; want %+v", got.Groups, want)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(bytes.NewReader(text)); !errors.Is(err, trust.ErrTamperable) || fault.Hint(err) == "" {
		t.Errorf("Read with a configuration that all can write = %v; want ErrTamperable with a hint", err)
	}
}

// endless is a message of so many bytes.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	n := min(len(p), e.left)
	e.left -= n
	for i := range n {
		p[i] = 'x'
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// TestReadIsLimited checks that a message which is too long is refused, and read to its
// end: slurmstepd waits for that.
func TestReadIsLimited(t *testing.T) {
	long := &endless{maxMessage + 1<<20}
	_, err := Read(long)
	const want = "error: the options and the environment of the step are too large: the limit is 8 MiB\n" +
		"hint: submit with --export=NONE, or unset what the step does not need\n"
	if err == nil || fault.Format("", err) != want || long.left != 0 {
		t.Errorf("Read = %v, and %d bytes are left; want %s", err, long.left, want)
	}
}

func TestParseLongVariable(t *testing.T) {
	limit := 32 * os.Getpagesize()
	for size, want := range map[int]bool{limit - 1: true, limit: false} {
		_, err := Parse(message("env=A=" + strings.Repeat("x", size-2)))
		if (err == nil) != want || err != nil && !strings.HasPrefix(err.Error(), "variable A is too large: the limit is ") {
			t.Errorf("Parse of a variable of %d bytes = %v; want success: %v", size, err, want)
		}
	}
}

// TestReadWithoutConfiguration checks that a node which cannot read its
// configuration, or is of another release, knows how to tell the others.
func TestReadWithoutConfiguration(t *testing.T) {
	step := []string{"job=5", "node=n2", "nodes=2", "env=SLURM_STEP_NODELIST=n[1-2]",
		"env=BROLGA_STEP_SECRET=" + strings.Repeat("07", 32), "env=BROLGA_STEP_SYNC=" + config.Default().Sync.String()}
	for _, bad := range []string{"config=/no/such.toml", "abi=1"} {
		got, err := Read(bytes.NewReader(message(append(step, bad)...)))
		if err == nil || got.Request.Sync == nil || got.Request.Own != 1 {
			t.Errorf("Read with %s = %+v, %v; want an error, and a request to tell it", bad, got, err)
		}
	}
}

func TestReadErrors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: reads a configuration that is root's alone")
	}
	path := site(t)
	if _, err := Read(strings.NewReader("")); !errors.Is(err, ErrNoCall) {
		t.Errorf("Read of nothing = %v; want ErrNoCall", err)
	}
	for _, tt := range []struct {
		name    string
		message []byte
		err     string
	}{
		{"cut off", []byte("job=5"), "internal error: message of the plugin: record 1 is cut off"},
		{"other release", message("abi=1"), "the plugin speaks version 1 of the protocol, the rest of Brolga on this node 2"},
		{"no image", message("config="+path, "uid=5", "account=ada"), "container options are given, but no image"},
		{"no account", message("config="+path, "uid=5", "account_error=no such user", "option=container-image", "value=ubuntu"), "find user 5 on this node: no such user"},
		{"no configuration", message("config=/no/such.toml"), "read site configuration: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(bytes.NewReader(tt.message))
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("Read = %+v, %v; want the error %q", got, err, tt.err)
			}
		})
	}
}
