package telemetry

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
)

// escaper escapes the values of labels.
var escaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func escape(value string) string { return escaper.Replace(value) }

// textBytes is how much text is formatted before it is written.
const textBytes = 32 << 10

// A textWriter formats metrics as Prometheus' text format, version 0.0.4. It never holds
// the whole page, which has tens of megabytes with ten thousand upstreams.
type textWriter struct {
	to  io.Writer
	buf []byte
	err error // the first error of a write
}

// flush writes the text so far.
func (w *textWriter) flush() {
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.to.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

func (w *textWriter) head(f *family) {
	w.buf = append(w.buf, "# HELP "+f.name+" "...)
	w.buf = append(w.buf, helpEscaper.Replace(f.help)...)
	w.buf = append(w.buf, "\n# TYPE "+f.name+" "+f.kind+"\n"...)
}

var helpEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`)

// line formats one line. Labels are in order, with escaped values.
func (w *textWriter) line(name, suffix string, labels []pair, value float64) {
	w.buf = append(append(w.buf, name...), suffix...)
	for i, l := range labels {
		between := byte(',')
		if i == 0 {
			between = '{'
		}
		w.buf = append(append(append(append(w.buf, between), l.name...), '=', '"'), l.value...)
		w.buf = append(w.buf, '"')
	}
	if len(labels) > 0 {
		w.buf = append(w.buf, '}')
	}
	w.buf = strconv.AppendFloat(append(w.buf, ' '), value, 'g', -1, 64)
	w.buf = append(w.buf, '\n')
}

// bounds are the upper bounds of a histogram's buckets.
var bounds = func() (all []pair) {
	for _, b := range latency.Bounds() {
		all = append(all, pair{"le", strconv.FormatFloat(b.Seconds(), 'g', -1, 64)})
	}
	return append(all, pair{"le", "+Inf"})
}()

// series formats the lines of one series.
func (w *textWriter) series(g *group, s *series) {
	var room [6]pair
	labels := append(room[:0], g.sorted...)
	for _, x := range s.extras {
		if x.name != "" {
			at, _ := slices.BinarySearchFunc(labels, x, pair.compare)
			labels = slices.Insert(labels, at, pair{x.name, escape(x.value)})
		}
	}
	if s.counts == nil {
		w.line(s.family.name, "", labels, s.value)
		return
	}
	within := uint64(0)
	for i, bound := range bounds {
		within += s.counts.Buckets[i]
		w.line(s.family.name, "_bucket", append(labels, bound), float64(within))
	}
	w.line(s.family.name, "_sum", labels, s.counts.Total.Seconds())
	w.line(s.family.name, "_count", labels, float64(within))
}

// A place is the position in a group at which the series of the next family
// begin.
type place struct{ at, version int }

// all formats all series of the set. It holds the set's lock only while it formats a
// part, not while it writes, because a reader may be slow.
func (w *textWriter) all(set *seriesSet, lock *sync.Mutex) {
	lock.Lock()
	groups, families := set.groups, set.used()
	lock.Unlock()
	places := make([]place, len(groups))
	for _, f := range families {
		begun := false
		for from := 0; from < len(groups) && w.err == nil; {
			lock.Lock()
			for ; from < len(groups) && len(w.buf) < textBytes; from++ {
				g, p := groups[from], &places[from]
				if p.version != g.version {
					*p = place{0, g.version}
				}
				for ; p.at < len(g.series) && g.series[p.at].family.order <= f.order; p.at++ {
					if g.series[p.at].family != f {
						continue
					}
					if !begun {
						w.head(f)
						begun = true
					}
					w.series(g, g.series[p.at])
				}
			}
			lock.Unlock()
			if len(w.buf) >= textBytes {
				w.flush()
			}
		}
	}
	w.flush()
}
