package safetext_test

import (
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":             "",
		"plain":        "plain",
		"a\nb\x1b[0m":  `a\nb\x1b[0m`,
		"bad \xff":     `bad \xff`,
		`back\slash`:   `back\\slash`,
		"Zürich 東京":    "Zürich 東京",
		"\u202eevil":   `\u202eevil`,
		"123456789012": "1234567890… (2 more bytes)",
		"12345678東京":   "12345678… (6 more bytes)",
	} {
		limit := 10
		if len(want) > 0 && in != "123456789012" && in != "12345678東京" {
			limit = 100
		}
		if got := safetext.Printable(in, limit); got != want {
			t.Errorf("safetext.Printable(%q) is %q, want %q", in, got, want)
		}
	}
}
