package main

import (
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/bench/stats"
)

// A line is a proxy's result in one row of a report.
type line struct {
	proxy string
	// figure and rate are medians, in the row's unit.
	figure, rate float64
	// p50 and p99 are medians, in milliseconds; 0 means no value.
	p50, p99 float64
	resumed  float64
	more     map[string]float64 // the medians of the other measurements
	// ratio compares the subject's figure with this proxy's, and p50Ratio compares
	// the latency. Both have no pairs in the subject's own line.
	ratio, p50Ratio stats.Ratio
	verdicts        []verdict
}

// A verdict is a target and its result.
type verdict struct {
	text, measured string // "≤ 0.70", "0.65 (0.60-0.71)"
	met            bool
}

func (v verdict) String() string {
	if v.met {
		return v.text + " met"
	}
	return v.text + " MISSED"
}

// lines compares the subject of r with all other proxies in one of its rows.
func (r *run) lines(w row, res result) []line {
	var out []line
	ours := res.Samples[r.Subject]
	for _, p := range r.Proxies {
		samples := res.Samples[p.Name]
		if len(samples) == 0 {
			continue
		}
		l := line{
			proxy:   p.Name,
			more:    map[string]float64{},
			figure:  stats.Median(column(samples, figureOf)) * w.unit.scale,
			rate:    stats.Median(column(samples, rateOf)) / w.unit.per,
			p50:     stats.Median(column(samples, p50Of)) * 1e3,
			p99:     stats.Median(column(samples, p99Of)) * 1e3,
			resumed: stats.Median(column(samples, func(s sample) float64 { return s.Resumed })),
		}
		for name := range samples[0].More {
			l.more[name] = stats.Median(column(samples, func(s sample) float64 { return s.More[name] }))
		}
		if p.Name != r.Subject {
			l.ratio = stats.Ratios(column(ours, figureOf), column(samples, figureOf))
			l.p50Ratio = stats.Ratios(column(ours, p50Of), column(samples, p50Of))
		}
		l.verdicts = verdicts(w, l, p.Name == r.Subject)
		out = append(out, l)
	}
	return out
}

// verdicts returns the targets of w that apply to l.
func verdicts(w row, l line, subject bool) []verdict {
	var out []verdict
	for _, t := range w.targets {
		switch {
		case t.peer == "" && subject:
			out = append(out, verdict{fmt.Sprintf("≤ %g %s", t.most, w.unit.name), short(l.figure), l.figure <= t.most})
		case t.peer == l.proxy && t.figure == median && l.p50Ratio.Pairs > 0:
			out = append(out, verdict{fmt.Sprintf("p50 ≤ %.2f", t.most), ratioText(l.p50Ratio), l.p50Ratio.Median <= t.most})
		case t.peer == l.proxy && t.figure == main1 && l.ratio.Pairs > 0:
			out = append(out, verdict{fmt.Sprintf("≤ %.2f", t.most), ratioText(l.ratio), l.ratio.Median <= t.most})
		}
	}
	return out
}

func column(samples []sample, of func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = of(s)
	}
	return out
}

func figureOf(s sample) float64 { return s.Figure }
func p50Of(s sample) float64    { return s.P50 }
func p99Of(s sample) float64    { return s.P99 }
func p999Of(s sample) float64   { return s.P999 }

func rateOf(s sample) float64 {
	if s.Wall == 0 {
		return 0
	}
	return s.Units / s.Wall
}
