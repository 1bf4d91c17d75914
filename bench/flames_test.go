package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEachRowOfARunGetsAFlameGraph(t *testing.T) {
	profiles, out := t.TempDir(), filepath.Join(t.TempDir(), "flames")
	var args []string
	for _, name := range []string{"drawbridge-http-small-1.pprof", "drawbridge-http-small-2.pprof", "drawbridge-reqresp-1.pprof"} {
		path := filepath.Join(profiles, name)
		if err := os.Rename(writeProfile(t, 5, 0x2000), path); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	var report strings.Builder
	if err := drawFlames(append([]string{"-dir", out}, args...), &report); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(report.String(), "\n"); len(lines) != 3 || !strings.Contains(lines[0], "Drawbridge 100 %") {
		t.Errorf("%q", lines)
	}
	for _, row := range []string{"http-small", "reqresp"} {
		drawn, err := os.ReadFile(filepath.Join(out, row+".svg"))
		if err != nil || !strings.Contains(string(drawn), "main.work: 100.0 %") || !strings.Contains(string(drawn), "row "+row) {
			t.Errorf("%s: %v\n%s", row, err, drawn)
		}
	}
	if drawFlames([]string{"-dir", out, filepath.Join(profiles, "other")}, io.Discard) == nil || drawFlames(nil, io.Discard) == nil {
		t.Error("a wrong command line was accepted")
	}
}

// Every row under a load has its picture, and the page says what the picture shows. A row
// that differs from another row only in the number of clients or resources needs no picture.
func TestEveryRowHasAFlameGraph(t *testing.T) {
	page, err := os.ReadFile("flames/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.work.idle > 0 || strings.HasPrefix(r.name, "growth-") || strings.HasPrefix(r.name, "http-conns-") {
			continue
		}
		if _, err := os.Stat(filepath.Join("flames", r.name+".svg")); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(page), "\n## "+r.name+"\n") || !strings.Contains(string(page), "("+r.name+".svg)") {
			t.Errorf("flames/README.md does not explain %s", r.name)
		}
	}
}
