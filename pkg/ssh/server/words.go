// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// words splits a command as a shell does, for images that have none: blanks
// separate, and both kinds of quotes and backslashes keep blanks and each other.
// What only a shell could do is an error.
func words(text string) ([]string, error) {
	var all []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, c := range text {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case strings.ContainsRune(" \t\n", c):
			if inWord {
				all = append(all, word.String())
				word.Reset()
			}
			inWord = false
		case strings.ContainsRune("|&;<>()$`*?[#~!{", c):
			return nil, fmt.Errorf("%q means something to a shell: quote it", c)
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		all = append(all, word.String())
	}
	if len(all) == 0 {
		return nil, errors.New("the command is empty")
	}
	return all, nil
}

// lookup finds a program in PATH, or by its path from dir.
func lookup(name, path, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		if at := filepath.Join(d, name); executable(at) {
			return at, nil
		}
	}
	return "", fmt.Errorf("%s: not found in PATH", name)
}
