package main

import (
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/bench/chart"
	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

// A group is a set of rows that differ in one number, drawn as lines over it.
type group struct {
	name, title, x, y string
	logY              bool
	// series returns the lines through the rows of the given names.
	series func(r *run, names []string) []chart.Series
}

var groups = []group{
	{
		name: "growth-conns", title: "CPU per message as connections grow", x: "connections", y: perMessage.name,
		series: func(r *run, names []string) []chart.Series {
			return r.series(names, func(l line) [3]float64 { return [3]float64{l.figure} })
		},
	},
	{
		name: "http-conns", title: "CPU per HTTP request as connections grow", x: "connections", y: perRequest.name,
		series: func(r *run, names []string) []chart.Series {
			return r.series(names, func(l line) [3]float64 { return [3]float64{l.figure} })
		},
	},
	{
		name: "growth-config", title: "Cost as the configuration grows", x: "upstreams and routes", y: "ms, or µs, or MiB", logY: true,
		series: func(r *run, names []string) []chart.Series {
			var out []chart.Series
			for _, column := range growColumns {
				for _, s := range r.series(names, func(l line) [3]float64 { return [3]float64{l.more[column]} }) {
					out = append(out, chart.Series{Name: column, Color: len(out), Values: s.Values})
				}
			}
			for _, s := range r.series(names, func(l line) [3]float64 { return [3]float64{l.figure} }) {
				out = append(out, chart.Series{Name: perRequest.name, Color: len(out), Values: s.Values})
			}
			return out
		},
	},
}

// group returns the names of a group's measured rows, and the number in which
// each differs.
func (r *run) group(g group) (names []string, x []float64) {
	r.each(func(w row, _ result) {
		if w.group == g.name {
			names, x = append(names, w.name), append(x, float64(w.size))
		}
	})
	return names, x
}

// growConns is reqresp with another number of connections.
func growConns(n int) row {
	return row{
		name: fmt.Sprintf("growth-conns-%d", n), group: "growth-conns", size: n,
		title: plural(n, "connection") + ", 64-byte messages there and back through L4",
		work:  work{load: load.Echo(n, 64), workers: n}, unit: perMessage,
	}
}

// httpConns is http-small with another number of connections.
func httpConns(n int) row {
	return row{
		name: fmt.Sprintf("http-conns-%d", n), group: "http-conns", size: n,
		title:   plural(n, "keep-alive connection") + ", GET of 1 KiB, HTTP/1.1 in, HTTPS/1.1 to the backend",
		service: proxy.Service{HTTP: true},
		work:    work{load: load.HTTP(n, 1<<10, load.Requests), workers: n}, unit: perRequest,
	}
}

// growConfig is http-small to some of n routes.
func growConfig(n int) row {
	return row{
		name: fmt.Sprintf("growth-config-%d", n), group: "growth-config", size: n,
		title:   fmt.Sprintf("%d upstreams and as many routes: put over gRPC, one changed, GET of 1 KiB from some", n),
		service: proxy.Service{HTTP: true, Admin: true},
		work:    work{config: n}, unit: perRequest,
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
