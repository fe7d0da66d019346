// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// secret is in every file of these tests, and must be in no error.
const secret = "wonderland"

// home makes a home directory with files, each a path and its text, and returns
// a finder for it. Credential helpers are looked for in its bin directory.
func home(t *testing.T, files ...string) (Finder, string) {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		mode := os.FileMode(0o600)
		if strings.HasPrefix(files[i], "bin/") {
			mode = 0o700
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(files[i+1]), mode)); err != nil {
			t.Fatal(err)
		}
	}
	return Finder{Env: []string{"HOME=" + dir, "PATH=" + dir + "/bin:/usr/bin:/bin", "TOKEN=" + secret}}, dir
}

// auths is a file in Docker's format with entries KEY USER.
func auths(entries ...string) string {
	m := map[string]any{}
	for i := 0; i < len(entries); i += 2 {
		m[entries[i]] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(entries[i+1] + ":" + secret))}
	}
	text, err := json.Marshal(map[string]any{"auths": m, "psFormat": "table"})
	if err != nil {
		panic(err)
	}
	return string(text)
}

const config = ".docker/config.json"

func TestFind(t *testing.T) {
	helper := func(text string) string { return "#!/bin/sh\n[ \"$1\" = get ] || exit 9\nread server\n" + text }
	const answers = `printf '{"ServerURL":"%s","Username":"helped","Secret":"` + secret + `"}' "$server"`
	for _, tt := range []struct {
		name     string
		files    []string
		registry string // r.example without it
		user     string
		want     string // user, or "" for none
		err      string // substring
	}{
		{name: "no files", want: ""},
		{name: "docker", files: []string{config, auths("r.example", "a")}, want: "a"},
		{name: "docker, as a URL", files: []string{config, auths("https://r.example/v1/", "a")}, want: "a"},
		{name: "docker hub", files: []string{config, auths(dockerHub, "a")}, registry: "docker.io", want: "a"},
		{name: "another registry", files: []string{config, auths("s.example", "a")}, want: ""},
		{name: "another port", files: []string{config, auths("r.example:5000", "a")}, want: ""},
		{name: "a longer name", files: []string{config, auths("r.example.org", "a", "x.r.example", "a")}, want: ""},
		{name: "port", files: []string{config, auths("r.example", "a", "r.example:5000", "b")}, registry: "r.example:5000", want: "b"},
		{name: "namespace", files: []string{config, auths("r.example", "a", "r.example/group", "b", "r.example/other", "c")}, want: "b"},
		{name: "podman", files: []string{".config/containers/auth.json", auths("r.example", "a")}, want: "a"},
		{name: "docker before podman", files: []string{config, auths("r.example", "a"), ".config/containers/auth.json", auths("r.example", "b")}, want: "a"},
		{name: "podman where docker has none", files: []string{config, auths("s.example", "a"), ".config/containers/auth.json", auths("r.example", "b")}, want: "b"},
		{name: "the user who is named", files: []string{config, auths("r.example", "a"), ".config/containers/auth.json", auths("r.example", "b")}, user: "b", want: "b"},
		{name: "user and password apart", files: []string{config, `{"auths":{"r.example":{"username":"a","password":"wonderland"}}}`}, want: "a"},
		{name: "empty file", files: []string{config, ""}, want: ""},
		{name: "empty entry", files: []string{config, `{"auths":{"r.example":{}}}`}, want: ""},

		{name: "enroot", files: []string{".config/enroot/.credentials", "machine r.example login a password " + secret}, want: "a"},
		{name: "enroot, on lines of their own", files: []string{".config/enroot/.credentials", "# mine\nmachine s.example\n\tlogin x\n\tpassword y\nmachine r.example\n\tlogin a\n\tpassword " + secret}, want: "a"},
		{name: "enroot, no port there", files: []string{".config/enroot/.credentials", "machine r.example login a password " + secret}, registry: "r.example:5000", want: "a"},
		{name: "enroot, docker hub", files: []string{".config/enroot/.credentials", "machine auth.docker.io login a password " + secret}, registry: "docker.io", want: "a"},
		{name: "enroot, robot", files: []string{".config/enroot/.credentials", "machine r.example login $oauthtoken password " + secret}, want: "$oauthtoken"},
		{name: "enroot, variable", files: []string{".config/enroot/.credentials", "machine r.example login a password $TOKEN"}, want: "a"},
		{name: "enroot, variable in braces", files: []string{".config/enroot/.credentials", "machine r.example login a password ${TOKEN}"}, want: "a"},
		{name: "enroot, command", files: []string{".config/enroot/.credentials", "machine r.example login a password $(echo $(printf wonder)land)\n"}, want: "a"},
		{name: "enroot, quoted", files: []string{".config/enroot/.credentials", `machine r.example login a password "` + secret + `"`}, want: "a"},
		{name: "enroot, the user who is named", files: []string{".config/enroot/.credentials", "machine r.example login a password x\nmachine r.example login b password " + secret}, user: "b", want: "b"},
		{name: "enroot, default is for nobody", files: []string{".config/enroot/.credentials", "default login a password " + secret}, want: ""},
		{name: "enroot, command that fails", files: []string{".config/enroot/.credentials", "machine r.example login a password $(exit 3)"}, err: "the password of r.example in "},

		{name: "helper of a registry", files: []string{config, `{"credHelpers":{"r.example":"x"}}`, "bin/docker-credential-x", helper(answers)}, want: "helped"},
		{name: "helper of all", files: []string{config, `{"credsStore":"x","auths":{"r.example":{}}}`, "bin/docker-credential-x", helper(answers)}, want: "helped"},
		{name: "helper of another", files: []string{config, `{"credHelpers":{"s.example":"x"}}`, "bin/docker-credential-x", helper(answers)}, want: ""},
		{name: "helper before entries", files: []string{config, `{"credsStore":"x",` + auths("r.example", "a")[1:], "bin/docker-credential-x", helper(answers)}, want: "helped"},
		{name: "helper has none", files: []string{config, `{"credsStore":"x",` + auths("r.example", "a")[1:], "bin/docker-credential-x", helper("echo " + notFound + "; exit 1")}, want: "a"},
		{name: "helper is missing, but need not be there", files: []string{config, `{"credsStore":"x",` + auths("r.example", "a")[1:]}, want: "a"},
		{name: "helper is missing", files: []string{config, `{"credsStore":"x"}`}, err: "credential helper docker-credential-x, named in "},
		{name: "helper fails", files: []string{config, `{"credsStore":"x"}`, "bin/docker-credential-x", helper("echo the keyring is locked; exit 1")}, err: "(the keyring is locked)"},
		{name: "helper fails with a secret", files: []string{config, `{"credsStore":"x"}`, "bin/docker-credential-x", helper(answers + "; exit 1")}, err: "exit status 1"},
		{name: "helper talks nonsense", files: []string{config, `{"credsStore":"x"}`, "bin/docker-credential-x", helper("echo " + secret)}, err: "its answer is not a credential"},
		{name: "helper with a path", files: []string{config, `{"credsStore":"/../../bin/docker-credential-x"}`, "bin/docker-credential-x", helper(answers)}, err: "its name is a path"},

		{name: "not JSON", files: []string{config, `{"auths":{"r.example":{"auth":"` + secret}, err: "is not a file in the format of Docker's config.json"},
		{name: "wrong type", files: []string{config, `{"auths":{"r.example":"` + secret + `"}}`}, err: "is not a file in the format of Docker's config.json"},
		{name: "not base64", files: []string{config, `{"auths":{"r.example":{"auth":"` + secret + `!"}}}`}, err: "is not the base64 form of USER:PASSWORD"},
		{name: "nobody of that name", files: []string{config, auths("r.example", "a")}, user: "b", err: `no credentials of user "b" for registry r.example`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, _ := home(t, tt.files...)
			if tt.registry == "" {
				tt.registry = "r.example"
			}
			got, err := f.Find(t.Context(), tt.registry, "group/app", tt.user)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), secret) {
					t.Errorf("Find = %v, %v; want an error with %q, and without the secret", got, err, tt.err)
				}
				return
			}
			if err != nil || got.User != tt.want || (tt.want != "" && got.Password != secret) {
				t.Errorf("Find = %q %q, %v; want %q with its password", got.User, string(got.Password), err, tt.want)
			}
		})
	}
}

func TestFindHonoursVariables(t *testing.T) {
	f, dir := home(t, "a.json", auths("r.example", "from a file"), "d/config.json", auths("r.example", "from docker"),
		"run/containers/auth.json", auths("r.example", "from the session"), "x/containers/auth.json", auths("r.example", "from podman"),
		"e/.credentials", "machine r.example login from-enroot password "+secret)
	for _, v := range []struct{ variable, want string }{
		{"ENROOT_CONFIG_PATH=" + dir + "/e", "from-enroot"},
		{"XDG_CONFIG_HOME=" + dir + "/x", "from podman"},
		{"XDG_RUNTIME_DIR=" + dir + "/run", "from the session"},
		{"DOCKER_CONFIG=" + dir + "/d", "from docker"},
		{"REGISTRY_AUTH_FILE=" + dir + "/a.json", "from a file"},
	} {
		f.Env = append(f.Env, v.variable)
		if got, err := f.Find(t.Context(), "r.example", "x", ""); err != nil || got.User != v.want {
			t.Errorf("with %s: Find = %v, %v; want %s", v.variable, got, err, v.want)
		}
	}
}

func TestFindRunsNoCommandOfOthers(t *testing.T) {
	f, dir := home(t, ".config/enroot/.credentials", "machine r.example login a password $(echo "+secret+")")
	path := filepath.Join(dir, ".config/enroot/.credentials")
	if err := os.Chmod(path, 0o622); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Find(t.Context(), "r.example", "x", ""); err == nil || fault.Hint(err) != "chmod 0600 "+path {
		t.Errorf("Find = %v, %v; want an error with a hint", got, err)
	}
}

func TestTokens(t *testing.T) {
	f, _ := home(t, config, `{"auths":{"r.example":{"identitytoken":"wonderland"},"s.example":{"registrytoken":"wonderland"}},"credHelpers":{"h.example":"x"}}`,
		"bin/docker-credential-x", "#!/bin/sh\necho '{\"Username\":\"<token>\",\"Secret\":\"wonderland\"}'")
	for registry, want := range map[string]Credential{
		"r.example": {IdentityToken: secret}, "s.example": {RegistryToken: secret}, "h.example": {IdentityToken: secret},
	} {
		if got, err := f.Find(t.Context(), registry, "x", ""); err != nil || got != want {
			t.Errorf("Find(%s) = %#v, %v", registry, got, err)
		}
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	c := Credential{User: "a", Password: secret, IdentityToken: secret, RegistryToken: secret}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if got := fmt.Sprintf(format, c); strings.Contains(got, secret) {
			t.Errorf("%s prints %s", format, got)
		}
	}
}

func TestSave(t *testing.T) {
	before := `{"auths":{"s.example":{"auth":"YTpi","email":"a@b"},"https://r.example/v1/":{"auth":"YTpi"}},"psFormat":"table","HttpHeaders":{"X":"1"}}`
	f, dir := home(t, config, before)
	path := filepath.Join(dir, config)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	where, err := f.Save(t.Context(), "r.example", Credential{User: "a", Password: secret})
	if err != nil || where != path {
		t.Fatalf("Save = %q, %v", where, err)
	}
	if got, err := f.Find(t.Context(), "r.example", "x", "a"); err != nil || got.Password != secret {
		t.Errorf("Find = %v, %v; want what was saved", got, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var after struct {
		Auths       map[string]map[string]string
		PsFormat    string
		HTTPHeaders map[string]string
	}
	if err := json.Unmarshal(text, &after); err != nil {
		t.Fatal(err)
	}
	if len(after.Auths) != 2 || after.Auths["s.example"]["email"] != "a@b" || after.PsFormat != "table" || after.HTTPHeaders["X"] != "1" {
		t.Errorf("the file is %s; want all else as it was", text)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", st.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v; want the file alone", entries, err)
	}
}

func TestSaveMakesTheFile(t *testing.T) {
	f, dir := home(t)
	if _, err := f.Save(t.Context(), "docker.io", Credential{User: "a", Password: secret}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, config))
	if err != nil || !strings.Contains(string(text), `"`+dockerHub+`"`) {
		t.Errorf("the file is %s, %v; want Docker's name for its registry", text, err)
	}
	if st, err := os.Stat(filepath.Join(dir, ".docker")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", st.Mode(), err)
	}
}

func TestSaveFollowsALink(t *testing.T) {
	f, dir := home(t, "dotfiles/config.json", "{}", ".docker/x", "")
	if err := os.Symlink("../dotfiles/config.json", filepath.Join(dir, config)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Save(t.Context(), "r.example", Credential{User: "a", Password: secret}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "dotfiles/config.json")); err != nil || !strings.Contains(string(text), "r.example") {
		t.Errorf("the linked file is %s, %v", text, err)
	}
	if _, err := os.Readlink(filepath.Join(dir, config)); err != nil {
		t.Error(err)
	}
}

func TestSaveLeavesABrokenFile(t *testing.T) {
	f, dir := home(t, config, `{"auths":`)
	if _, err := f.Save(t.Context(), "r.example", Credential{User: "a", Password: secret}); err == nil {
		t.Error("Save = nil; want an error")
	}
	if text, err := os.ReadFile(filepath.Join(dir, config)); err != nil || string(text) != `{"auths":` {
		t.Errorf("the file is %s, %v; want it as it was", text, err)
	}
}

// keyring is a credential helper that keeps one credential in a file beside it.
const keyring = `#!/bin/sh
dir=${0%/*}
case $1 in
store) cat >"$dir/kept" ;;
get) cat "$dir/kept" 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;
erase) rm "$dir/kept" ;;
esac
`

func TestSaveAndEraseWithAHelper(t *testing.T) {
	f, dir := home(t, config, `{"credsStore":"keyring"}`, "bin/docker-credential-keyring", keyring)
	if where, err := f.Save(t.Context(), "r.example", Credential{User: "a", Password: secret}); err != nil || where != "the credential helper docker-credential-keyring" {
		t.Fatalf("Save = %q, %v", where, err)
	}
	if got, err := f.Find(t.Context(), "r.example", "x", ""); err != nil || got.Password != secret {
		t.Errorf("Find = %v, %v; want what was saved", got, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, config))
	if err != nil || strings.Contains(string(text), base64.StdEncoding.EncodeToString([]byte("a:"+secret))) || !strings.Contains(string(text), "r.example") {
		t.Errorf("the file is %s, %v; want an entry without the password", text, err)
	}
	from, left, err := f.Erase(t.Context(), "r.example")
	if err != nil || left != "" || !slices.Equal(from, []string{"the credential helper docker-credential-keyring", filepath.Join(dir, config)}) {
		t.Errorf("Erase = %q, %q, %v", from, left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "bin/kept")); err == nil {
		t.Error("the helper still has it")
	}
}

func TestErase(t *testing.T) {
	f, dir := home(t, config, auths("r.example", "a", "https://r.example/v2/", "b", "s.example", "c"), ".config/containers/auth.json", auths("r.example", "d"),
		".config/enroot/.credentials", "machine r.example login a password x")
	from, left, err := f.Erase(context.Background(), "r.example")
	if err != nil || len(from) != 2 || left != filepath.Join(dir, ".config/enroot/.credentials") {
		t.Errorf("Erase = %q, %q, %v; want two files, and enroot's left", from, left, err)
	}
	if got, err := f.Find(t.Context(), "s.example", "x", ""); err != nil || got.User != "c" {
		t.Errorf("Find of another registry = %v, %v; want it still there", got, err)
	}
	if from, _, err := f.Erase(context.Background(), "r.example"); err != nil || len(from) != 0 {
		t.Errorf("second Erase = %q, %v; want nothing", from, err)
	}
}

// FuzzNetrc looks for files that the parser does not survive.
func FuzzNetrc(f *testing.F) {
	for _, seed := range []string{
		"machine r.example login a password b", "machine\n", "machine r login", `machine r password "`, "machine r password $(a (b) c) login x",
		"machine r password $(a", "#\n#", "default login a", "password x", "machine r login $oauthtoken password ${A}$B",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, e := range parseNetrc(text) {
			if strings.Contains(string(e.password), "\n") && !strings.Contains(text, `"`) {
				t.Errorf("password of more than one line: %q", text)
			}
		}
	})
}
