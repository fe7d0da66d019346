// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"
)

// Secret is what all helpers of one step know, and nobody else but the user and
// root. It is never used itself: [Secret.Key] derives what a purpose needs. It
// does not show itself in messages.
type Secret struct{ bytes []byte }

const secretSize = 32

// keySize is the length of what [Secret.Key] returns.
const keySize = 32

// NewSecret makes a secret of bytes of the kernel's.
func NewSecret() (Secret, error) {
	bytes := make([]byte, secretSize)
	// Short only for more than 256 bytes (getrandom(2)).
	if _, err := unix.Getrandom(bytes, 0); err != nil {
		return Secret{}, fmt.Errorf("make the secret of the step: %w", err)
	}
	return Secret{bytes}, nil
}

// parseSecret reads what [Secret.Reveal] wrote.
func parseSecret(text string) (Secret, error) {
	bytes, err := hex.DecodeString(text)
	if err != nil || len(bytes) != secretSize {
		return Secret{}, errors.New(SecretVariable + " is malformed: unset it") // its value is not shown
	}
	return Secret{bytes}, nil
}

// Reveal writes the secret as a value for [SecretVariable].
func (s Secret) Reveal() string { return hex.EncodeToString(s.bytes) }

// IsZero tells whether there is no secret.
func (s Secret) IsZero() bool { return len(s.bytes) == 0 }

// Key derives a key of 32 bytes for a purpose, with HKDF and SHA-256 (RFC 5869).
// Keys of different purposes say nothing of each other. Of no secret there is no
// key: that is a mistake of the caller's, which panics.
func (s Secret) Key(purpose string) []byte {
	if s.IsZero() {
		panic("a key of no secret")
	}
	key, err := hkdf.Key(sha256.New, s.bytes, nil, "brolga "+purpose, keySize)
	if err != nil { // only for a key that is far longer
		panic(err)
	}
	return key
}

const hidden = "(secret)"

// String implements fmt.Stringer without the secret, as the following do for what
// else prints values.
func (Secret) String() string { return hidden }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return hidden }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
