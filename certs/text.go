package certs

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds on text from peers and files in our messages.
const (
	maxText  = 500 // characters of one text
	maxNames = 5   // names in one sentence
	maxSANs  = 100 // names in an Info
)

// printable returns s cut to about limit bytes, with every character escaped
// that could start a new line, control a terminal or break an encoding.
func printable(s string, limit int) string {
	cut := 0
	if len(s) > limit {
		end := limit
		for end > 0 && end > limit-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		cut = len(s) - end
		s = s[:end]
	}
	if plain(s) && cut == 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strconv.IsPrint(r) && r != '\\':
			b.WriteRune(r)
		case r == '\\':
			b.WriteString(`\\`)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	if cut > 0 {
		fmt.Fprintf(&b, "… (%d more bytes)", cut)
	}
	return b.String()
}

// ErrorText returns the text of a TLS connection's error for a log: bounded
// and escaped. Errors of crypto/tls are neither; one quotes all ALPN protocols
// of a client, up to 64 KiB. The text of a nil error is empty.
func ErrorText(err error) string {
	if err == nil {
		return ""
	}
	return printable(err.Error(), maxText)
}

// plain reports whether s is printable ASCII without a backslash.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '\\' {
			return false
		}
	}
	return true
}

// nameList joins at most maxNames names, each escaped and truncated, and
// counts the rest: a certificate may have thousands.
func nameList(names []string) string {
	if len(names) == 0 {
		return "no name"
	}
	shown := names[:min(len(names), maxNames)]
	parts := make([]string, len(shown))
	for i, n := range shown {
		parts[i] = printable(n, 100)
	}
	s := strings.Join(parts, ", ")
	if more := len(names) - len(shown); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
