package policy

import (
	"strings"
	"unicode"
)

// maxText bounds how much of a text from a peer appears in a log.
const maxText = 300

// Printable returns an error's text, bounded and on one line.
func Printable(err error) string { return Bounded(err.Error()) }

// Bounded returns s, bounded and without terminal control characters.
func Bounded(s string) string {
	cut := len(s) > maxText
	if cut {
		s = s[:maxText]
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
	if cut {
		s += "…"
	}
	return s
}
