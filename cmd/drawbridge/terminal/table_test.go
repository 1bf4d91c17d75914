package terminal

import (
	"bytes"
	"strings"
	"testing"
)

func TestColorsDoNotMoveColumns(t *testing.T) {
	tb := &Table{Header: []string{"HEALTH", "DAYS LEFT", "REASON"}}
	tb.Add("up", "expired", "EXPIRED")
	tb.Add("1 up, 1 down", "6", "")
	tb.Add("not tried", "29", "\x1b[2J")
	tb.Add("ümlaut", "300", "x")
	var plain, colored bytes.Buffer
	if err := tb.Write(&plain, false); err != nil {
		t.Fatal(err)
	}
	if err := tb.Write(&colored, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\x1b[32mup\x1b[0m   ", "\x1b[31m1 up, 1 down\x1b[0m   ", "\x1b[31mexpired\x1b[0m", "\x1b[33m6\x1b[0m ", "\x1b[33m29\x1b[0m ", "   300         ", "\uFFFD[2J"} {
		if !strings.Contains(colored.String(), want) {
			t.Errorf("no %q in %q", want, colored.String())
		}
	}
	stripped := colored.String()
	for _, code := range []string{"32", "31", "33", "0"} {
		stripped = strings.ReplaceAll(stripped, "\x1b["+code+"m", "")
	}
	if stripped != plain.String() {
		t.Errorf("colored\n%s\nplain\n%s", stripped, plain.String())
	}
	if !strings.Contains(plain.String(), "\nümlaut         300         x\n") {
		t.Errorf("got\n%s", plain.String())
	}
}

func TestEmptyTextIsNotColored(t *testing.T) {
	if got := Paint(true).Bad(""); got != "" {
		t.Errorf("an empty text in red is %q", got)
	}
}
