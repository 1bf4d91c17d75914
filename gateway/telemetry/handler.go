package telemetry

import (
	"bufio"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Handler serves the metrics to Prometheus, in its text format. It publishes before each
// response.
func (p *Publisher) Handler() http.Handler {
	help := help()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.publish()
		rest, err := helpGatherer{p.registry, help}.Gather()
		if err != nil {
			http.Error(w, "the metrics cannot be read: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
		if !acceptsGzip(r) {
			p.write(w, rest)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		// The fastest level suffices, because the text is repetitive and traffic needs
		// the CPU.
		compressed, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the error could only be an invalid level
		p.write(compressed, rest)
		compressed.Close()
	})
}

// acceptsGzip reports whether the client accepts gzip: it names gzip with a weight
// above zero.
func acceptsGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, parameter, _ := strings.Cut(coding, ";")
		if strings.TrimSpace(name) != "gzip" {
			continue
		}
		weight, given := strings.CutPrefix(strings.TrimSpace(parameter), "q=")
		return !given || strings.Trim(weight, "0.") != ""
	}
	return false
}

// write writes all metrics, and the rest last. It returns early if a write to
// to fails.
func (p *Publisher) write(to io.Writer, rest []*dto.MetricFamily) {
	w := &textWriter{to: to}
	w.all(p.set, &p.mu)
	p.writeExpiry(w)
	if w.err != nil {
		return
	}
	buffered := bufio.NewWriter(to)
	for _, f := range rest {
		if _, err := expfmt.MetricFamilyToText(buffered, f); err != nil {
			return
		}
	}
	buffered.Flush()
}

// writeExpiry writes the remaining validity of each certificate.
func (p *Publisher) writeExpiry(w *textWriter) {
	p.mu.Lock()
	f := p.set.family(expiryFamily)
	p.mu.Unlock()
	begun, now := false, time.Now()
	p.o.Expiries(func(use, name, endpoint string, notAfter time.Time) {
		if !begun {
			w.head(f)
			begun = true
		}
		w.line(f.name, "", []pair{{"endpoint", escape(endpoint)}, {"name", escape(name)}, {"use", use}}, notAfter.Sub(now).Seconds())
		if len(w.buf) >= textBytes {
			w.flush()
		}
	})
	w.flush()
}
