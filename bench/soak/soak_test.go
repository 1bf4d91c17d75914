package soak

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A short soak. It also proves that the gateway ends as it began, but shows only fast leaks.
func TestAShortSoak(t *testing.T) {
	binary := os.Getenv("DRAWBRIDGE_BINARY")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "drawbridge")
		if out, err := exec.Command("go", "-C", "../..", "build", "-o", binary, "./cmd/drawbridge").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	plot := filepath.Join(t.TempDir(), "soak.svg")
	var report strings.Builder
	err := Run(context.Background(), Options{Binary: binary, Length: 10 * time.Second, Plot: plot, Report: &report})
	t.Log(report.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"L4, session", "HTTP/2", "gRPC, stream", "WebSocket, session", "endpoint failure", "rotation", "upgrade", "PASSED"} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if info, err := os.Stat(plot); err != nil || info.Size() == 0 {
		t.Errorf("the plot: %v", err)
	}
}

func TestLeaksAreReported(t *testing.T) {
	before := usage{memory: 20, descriptors: 30, goroutines: 50}
	if got := before.leaks(before); len(got) > 0 {
		t.Errorf("without a leak: %q", got)
	}
	got := strings.Join(usage{memory: 60, descriptors: 40, goroutines: 60}.leaks(before), "; ")
	for _, want := range []string{"60.0 MiB", "40.0 descriptors", "60.0 goroutines"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

func TestFailuresArePermittedOnlyDuringAnOutage(t *testing.T) {
	now := time.Now()
	s := &site{outages: []outage{{began: now.Add(-time.Minute), ended: now.Add(-50 * time.Second)}}}
	if s.broken(now) || !s.broken(now.Add(-46*time.Second)) {
		t.Error("the outage ended 50 seconds ago")
	}
	s.outages = append(s.outages, outage{began: now})
	if !s.broken(now) {
		t.Error("an outage is in progress")
	}
}

func TestSparkline(t *testing.T) {
	if got, want := sparkline([]float64{0, 1, 2, 7}, 80), "▁▂▃█  0 to 7"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := sparkline([]float64{0, 7, 7, 0}, 2), "██  0 to 7"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
