package certs

import (
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// Bounds on texts from peers and files in our messages.
const (
	maxText  = 500 // characters of one text
	maxNames = 5   // names in one sentence
	maxSANs  = 100 // names in an Info
)

// ErrorText returns the text of a TLS connection's error, bounded and escaped
// for a log. An error of crypto/tls may quote all ALPN protocols of a client,
// up to 64 KiB. The text of a nil error is empty.
func ErrorText(err error) string {
	if err == nil {
		return ""
	}
	return safetext.Printable(err.Error(), maxText)
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
		parts[i] = safetext.Printable(n, 100)
	}
	s := strings.Join(parts, ", ")
	if more := len(names) - len(shown); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
