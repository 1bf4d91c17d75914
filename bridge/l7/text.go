package l7

import (
	"strings"
	"unicode"
)

// maxText bounds what a log shows of a text that a peer may have chosen.
const maxText = 300

// printable returns an error's text, bounded and on one line.
func printable(err error) string { return bounded(err.Error()) }

// bounded returns s, bounded and without what a terminal would obey.
func bounded(s string) string {
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
