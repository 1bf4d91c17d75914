package soak

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/chart"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A sampler measures a gateway again and again.
type sampler struct {
	gateway *gateway

	mu      sync.Mutex
	samples []usage
}

func newSampler(g *gateway) *sampler { return &sampler{gateway: g} }

// run measures until ctx ends. A measurement fails if an upgrade replaces the process in
// the middle of it. Then run uses the next measurement.
func (s *sampler) run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if u, err := s.gateway.usage(ctx); err == nil {
			s.mu.Lock()
			s.samples = append(s.samples, u)
			s.mu.Unlock()
		}
	}
}

// mark discards the samples of the warm-up.
func (s *sampler) mark() {
	s.mu.Lock()
	s.samples = nil
	s.mu.Unlock()
}

// series returns the figures over time, in the order of their names.
func (s *sampler) series() (minutes []float64, figures []chart.Series) {
	s.mu.Lock()
	defer s.mu.Unlock()
	figures = []chart.Series{{Name: "memory (MiB)", Color: 0}, {Name: "descriptors", Color: 1}, {Name: "goroutines", Color: 2}}
	for _, u := range s.samples {
		minutes = append(minutes, u.time.Sub(s.samples[0].time).Minutes())
		for i, v := range []float64{u.memory, u.descriptors, u.goroutines} {
			figures[i].Values = append(figures[i].Values, v)
		}
	}
	return minutes, figures
}

// report writes the results, and returns ErrVerdict if the gateway failed the
// soak.
func report(ctx context.Context, o Options, s *site, t *tally, samples *sampler, before, after usage) error {
	t.write(o.Report)
	minutes, figures := samples.series()
	fmt.Fprintf(o.Report, "\nof the process that serves, every %v:\n", o.every(240, 250*time.Millisecond))
	for _, f := range figures {
		fmt.Fprintf(o.Report, "  %-13s %s\n", f.Name, sparkline(f.Values, sparkWidth))
	}
	if o.Plot != "" && len(minutes) > 1 {
		if err := chart.Time(o.Plot, "A soak of "+o.Length.String(), "minutes", minutes, figures); err != nil {
			return err
		}
		fmt.Fprintln(o.Report, "  the plot is in", o.Plot)
	}
	var faults []string
	if n := t.failures(); n > 0 {
		faults = append(faults, fmt.Sprintf("%d failures that the design does not permit", n))
	}
	fmt.Fprintf(o.Report, "\nidle before: %v\nidle after:  %v\n", before, after)
	faults = append(faults, after.leaks(before)...)
	status, err := s.gateway.status.GetStatus(ctx, &adminv1.GetStatusRequest{})
	if err != nil {
		return err
	}
	if status.GetRevision() < s.written {
		faults = append(faults, fmt.Sprintf("revision %d is live, and %d was acknowledged", status.GetRevision(), s.written))
	}
	left := processes(s.gateway)
	for end := time.Now().Add(settleTimeout); left > 1 && time.Now().Before(end) && ctx.Err() == nil; left = processes(s.gateway) {
		time.Sleep(100 * time.Millisecond) // a process that an upgrade replaced may still drain
	}
	if left > 1 {
		faults = append(faults, fmt.Sprintf("%d processes are left, and one serves", left))
	}
	if len(faults) > 0 {
		fmt.Fprintf(o.Report, "FAILED: %s\n", strings.Join(faults, "; "))
		return ErrVerdict
	}
	fmt.Fprintln(o.Report, "PASSED: memory, descriptors and goroutines ended where they began, and every failure is permitted")
	return nil
}

// processes returns how many processes of the gateway exist.
func processes(g *gateway) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	count := 0
	for _, e := range entries {
		text, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && strings.Contains(string(text), "\x00serve\x00") && strings.Contains(string(text), "\x00"+g.pidFile()+"\x00") {
			count++
		}
	}
	return count
}

// sparkWidth is the width of a sparkline.
const sparkWidth = 80

var sparks = []rune("▁▂▃▄▅▆▇█")

// sparkline draws values as a line of characters, scaled from 0 to the greatest value,
// and appends the least and the greatest value. A character that stands for several
// values shows the greatest of them.
func sparkline(values []float64, width int) string {
	if len(values) == 0 {
		return "no samples"
	}
	least, most := math.Inf(1), 0.0
	for _, v := range values {
		least, most = min(least, v), max(most, v)
	}
	width = min(width, len(values))
	var out strings.Builder
	for i := range width {
		highest := 0.0
		for _, v := range values[i*len(values)/width : (i+1)*len(values)/width] {
			highest = max(highest, v)
		}
		out.WriteRune(sparks[int(highest/max(most, 1)*float64(len(sparks)-1))])
	}
	return fmt.Sprintf("%s  %.0f to %.0f", out.String(), least, most)
}
