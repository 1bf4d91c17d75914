package probe

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Text from an endpoint is shown printable and bounded.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "HTTP/1.1 400 Bad Request", "\x1b[31m\n", "\xff\xfe", strings.Repeat("ä", 100), "\u202e\u2028", `"\\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, out := range []string{quote(s, 120), escape(s)} {
			// Each byte becomes at most four: \xff.
			if !utf8.ValidString(out) || len(out) > 4*200+5 || strings.ContainsFunc(out, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is shown as %q", s, out)
			}
		}
	})
}
