package main

import (
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

// drawbridge builds the compared program.
func drawbridge(t *testing.T) proxy.Kind {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drawbridge")
	if out, err := exec.Command("go", "-C", "..", "build", "-o", path, "./cmd/drawbridge").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return proxy.Drawbridge{Label: "drawbridge", Path: path}
}

// withoutLapses returns r with the rows in which only peers failed from another run, or
// from a third one. On a busy machine HAProxy 2.6 stops for good in the middle of a transfer
// now and then, with all of the response received; that is not a fault of the
// configurations.
func withoutLapses(t *testing.T, o *options, r *run) *run {
	t.Helper()
	for range 2 {
		again := *o
		again.rows = nil
		for _, res := range r.Rows {
			ours := func(fault string) bool { return strings.HasPrefix(fault, "drawbridge: ") }
			if len(res.Faults) == 0 || slices.ContainsFunc(res.Faults, ours) {
				continue
			}
			t.Logf("%s is run again: %q", res.Row, res.Faults)
			again.rows = append(again.rows, o.rows[slices.IndexFunc(o.rows, func(w row) bool { return w.name == res.Row })])
		}
		if len(again.rows) == 0 {
			break
		}
		next, err := again.run(t.Context(), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		for _, res := range next.Rows {
			r.Rows[slices.IndexFunc(r.Rows, func(first result) bool { return first.Row == res.Row })] = res
		}
	}
	return r
}

// Each row runs briefly: the configurations are valid, and the returned bytes
// are right. Peers that are not installed are skipped.
func TestEveryInstalledProxyDoesTheWorkOfEveryRow(t *testing.T) {
	o := &options{subject: []proxy.Kind{drawbridge(t)}, pairs: 1, warmUp: time.Millisecond, length: 20 * time.Millisecond, silence: time.Millisecond}
	peers, err := allPeers()
	if err != nil {
		t.Fatal(err)
	}
	o.peers = peers
	for _, w := range rows {
		if w.work.program != nil || w.group != "" && w.size > 100 {
			continue // takes seconds
		}
		if w.work.idle > 0 {
			w.work.idle = 50
		}
		o.rows = append(o.rows, w)
	}
	r, err := o.run(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("left out:", r.Missing)
	r = withoutLapses(t, o, r)
	if err := r.failed(); err != nil {
		t.Error(err)
	}
	for _, res := range r.Rows {
		for _, p := range r.Proxies {
			if res.Skipped[p.Name] == "" && len(res.Samples[p.Name]) != 1 {
				t.Errorf("%s: %s has %d samples", res.Row, p.Name, len(res.Samples[p.Name]))
			}
		}
	}
	if i := slices.IndexFunc(r.Rows, func(res result) bool { return res.Row == "growth-config-10" }); i < 0 || r.Rows[i].Samples["drawbridge"][0].More[applyAll] <= 0 {
		t.Error("growth-config-10 has not measured an apply")
	}
}
