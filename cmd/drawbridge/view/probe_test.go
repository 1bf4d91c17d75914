package view

import (
	"bytes"
	"strings"
	"testing"
)

func TestProbeIsPrintedForPeople(t *testing.T) {
	var plain, colored bytes.Buffer
	if err := WriteProbe(&plain, false, probes(t).GetResults(), today); err != nil {
		t.Fatal(err)
	}
	golden(t, "probe.txt", plain.String())
	if strings.Contains(plain.String(), "\x1b") {
		t.Error("an escape sequence without a terminal")
	}
	if err := WriteProbe(&colored, true, probes(t).GetResults(), today); err != nil {
		t.Fatal(err)
	}
	golden(t, "probe-color.txt", colored.String())
}
