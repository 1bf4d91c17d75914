package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestTargetsUseTheMedianOfThePairs(t *testing.T) {
	w := row{name: "reqresp", unit: perMessage, targets: []target{
		against("nginx", 0.95), {median, "nginx", 0.5}, {main1, "", 20},
	}}
	r := &run{Subject: "drawbridge", Proxies: []proxyInfo{{Name: "drawbridge"}, {Name: "nginx"}, {Name: "absent"}}}
	res := result{Row: "reqresp", Samples: map[string][]sample{
		"drawbridge": {{Figure: 8e-6, P50: 1}, {Figure: 16e-6, P50: 1}, {Figure: 32e-6, P50: 1}},
		"nginx":      {{Figure: 16e-6, P50: 1}, {Figure: 16e-6, P50: 3}, {Figure: 64e-6, P50: 4}},
	}}
	lines := r.lines(w, res)
	if len(lines) != 2 {
		t.Fatalf("there are %d lines, want one a proxy that was measured", len(lines))
	}
	ours, nginx := lines[0], lines[1]
	if ours.figure != 16 || ours.ratio.Pairs != 0 {
		t.Errorf("our own line: %+v", ours)
	}
	if got := verdictText(ours.verdicts); got != "≤ 20 CPU µs/message met" {
		t.Errorf("the absolute target: %q", got)
	}
	if nginx.ratio.Median != 0.5 || nginx.ratio.Max != 1 {
		t.Errorf("the ratio is %+v, want the median 0.5 of 0.5, 1 and 0.5", nginx.ratio)
	}
	if got := verdictText(nginx.verdicts); got != "≤ 0.95 met, p50 ≤ 0.50 met" {
		t.Errorf("the targets beside nginx: %q", got)
	}
}

func TestMissingProxiesAndFaultsAreReported(t *testing.T) {
	r := &run{
		Subject: "drawbridge", Proxies: []proxyInfo{{Name: "drawbridge", Version: "drawbridge 1"}},
		Missing: []string{"haproxy: haproxy is not installed"},
		Rows: []result{{
			Row: "bulk-down", Skipped: map[string]string{"stunnel": "speaks no HTTP"},
			Faults: []string{"nginx: 3 connections failed"},
		}},
	}
	var text bytes.Buffer
	r.writeText(&text)
	for _, want := range []string{"left out: haproxy: haproxy is not installed", "stunnel: speaks no HTTP", "FAILED: nginx: 3 connections failed"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, text.String())
		}
	}
	if r.failed() == nil {
		t.Error("a row that failed does not count as a failure")
	}
}
