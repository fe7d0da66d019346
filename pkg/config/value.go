// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span written as Go writes it, "10m" or "1h30m".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time span such as 10m", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Dirs is a list of directories, in TOML also one alone.
type Dirs []string

// UnmarshalTOML implements toml.Unmarshaler.
func (d *Dirs) UnmarshalTOML(value any) error {
	values, isList := value.([]any)
	if !isList {
		values = []any{value}
	}
	*d = Dirs{}
	for _, v := range values {
		dir, ok := v.(string)
		if !ok {
			return fmt.Errorf("%v: want a directory or a list of them", v)
		}
		*d = append(*d, dir)
	}
	return nil
}

// Size is a number of bytes, written with a suffix such as in "20g".
type Size int64

// ParseSize reads a number of bytes with or without a suffix k, m, g or t, which
// stand for powers of 1024.
func ParseSize(text string) (Size, error) {
	number := strings.TrimRight(strings.ToLower(text), "kmgt")
	n, err := strconv.ParseUint(number, 10, 63)
	shift := 0
	if suffix := strings.ToLower(text[len(number):]); suffix != "" {
		shift = 10 * (1 + strings.Index("kmgt", suffix))
	}
	if err != nil || len(text)-len(number) > 1 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size such as 20g", text)
	}
	return Size(n << shift), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	*s = v
	return err
}

// String returns the size with the largest suffix that leaves a whole number.
func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if unit := Size(1) << (10 * (i + 1)); s != 0 && s%unit == 0 {
			return strconv.FormatInt(int64(s/unit), 10) + "kmgt"[i:i+1]
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Portion is a size, written as [Size], or a percentage, written as "50%", of what
// [Portion.Of] is told. Zero is no limit.
type Portion struct {
	Size    Size
	Percent int // counts if it is not zero
}

// Of returns the number of bytes that p is of a whole. Zero is no limit.
func (p Portion) Of(whole int64) int64 {
	if p.Percent != 0 {
		return whole / 100 * int64(p.Percent)
	}
	return int64(p.Size)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Portion) UnmarshalText(text []byte) error {
	number, isPercent := strings.CutSuffix(string(text), "%")
	if !isPercent {
		*p = Portion{}
		return p.Size.UnmarshalText(text)
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > 100 {
		return fmt.Errorf("%q is not a percentage from 1%% to 100%%", text)
	}
	*p = Portion{Percent: n}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (p Portion) MarshalText() ([]byte, error) {
	if p.Percent != 0 {
		return []byte(strconv.Itoa(p.Percent) + "%"), nil
	}
	return p.Size.MarshalText()
}
