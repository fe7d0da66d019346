// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretKeys(t *testing.T) {
	s, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseSecret(s.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Key("sync"); len(got) != keySize || !bytes.Equal(got, again.Key("sync")) {
		t.Errorf("Key = %x; want %d bytes, the same for who read the secret", got, keySize)
	}
	if bytes.Equal(s.Key("sync"), s.Key("ssh")) || bytes.Equal(s.Key("sync"), other.Key("sync")) {
		t.Error("keys of different purposes or secrets are equal")
	}
}

// TestSecretKeyIsHKDF compares with what openssl kdf -kdfopt digest:SHA256
// -kdfopt hexkey:00...1f -kdfopt info:"brolga sync" -keylen 32 HKDF says.
func TestSecretKeyIsHKDF(t *testing.T) {
	s, err := parseSecret("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	if err != nil {
		t.Fatal(err)
	}
	const want = "01233b90a0f97b4a8e3ef5c32d893da18fec7d9adb58c1093d30a3b75cb939b4"
	if got := hex.EncodeToString(s.Key("sync")); got != want {
		t.Errorf("Key = %s; want %s", got, want)
	}
}

func TestParseSecretErrors(t *testing.T) {
	for _, text := range []string{"", "00", strings.Repeat("x", 64), strings.Repeat("0", 66)} {
		if s, err := parseSecret(text); err == nil || (text != "" && strings.Contains(err.Error(), text)) {
			t.Errorf("parseSecret(%q) = %v, %v; want an error that does not repeat it", text, s.bytes, err)
		}
	}
}

// TestSecretIsHidden prints a step in all ways that a message may.
func TestSecretIsHidden(t *testing.T) {
	secret, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	s := struct {
		Secret Secret
		Other  int
	}{Secret: secret}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("step", "secret", secret, "all", s)
	all := fmt.Sprintf("%v %+v %#v %s %q %s %s", s, s, s, secret, secret, text, &log)
	for _, bad := range []string{secret.Reveal(), strings.Trim(fmt.Sprint(secret.bytes[:4]), "[]"), fmt.Sprintf("%#v", secret.bytes[:4])[7:20]} {
		if strings.Contains(all, bad) {
			t.Errorf("%q is in %s", bad, all)
		}
	}
}

func TestKeyOfNoSecret(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("there is a key of no secret")
		}
	}()
	Secret{}.Key("sync")
}
