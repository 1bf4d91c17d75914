package l7

import (
	"bytes"
	"io"
	"math"
	"net"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// A responseRow is a response of an HTTP/1 upstream.
type responseRow struct {
	name            string
	before          string   // interim responses
	fields          []string // "name: value"
	chunks, trailer string   // both "": the body has a length
	reason          string   // why it costs more than 1 ms for 64 KiB
}

var responseRows = []responseRow{
	{name: "one long value", fields: []string{"X: " + strings.Repeat("v", headBytes)}},
	{name: "many fields", fields: repeated(190, "X-Field-%d: "+strings.Repeat("v", 250))},
	{name: "short fields", fields: repeated(190, "a: b"), reason: "the response is small, so most of the cost is that of one request"},
	{name: "cookies", fields: repeated(190, "Set-Cookie: c%d="+strings.Repeat("v", 250))},
	{name: "Connection names fields of the same length", fields: namedFields()[:190]},
	{name: "Connection with empty elements", fields: []string{"Connection: " + strings.Repeat(",", headBytes)}},
	{name: "an announced trailer", fields: []string{"Trailer: " + strings.Repeat("a,", headBytes/2)}},
	{name: "interim responses", before: strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("a", 1000)+"\r\n\r\n", 30)},
	{name: "small chunks", chunks: strings.Repeat("1\r\nA\r\n", 12_000)},
	{name: "chunk extensions", chunks: strings.Repeat("1;name=value\r\nA\r\n", 300)},
	{name: "a trailer", trailer: strings.Repeat("X-Trailer-Field: "+strings.Repeat("v", 250)+"\r\n", 100)},
}

// marker ends the data of every body.
const marker = "END"

func (r *responseRow) response() string {
	head := r.before + "HTTP/1.1 200 OK\r\n" + strings.Join(append(r.fields, ""), "\r\n")
	if r.chunks == "" && r.trailer == "" {
		return head + "Content-Length: 3\r\n\r\n" + marker
	}
	return head + "Transfer-Encoding: chunked\r\n\r\n" + r.chunks + "3\r\n" + marker + "\r\n0\r\n" + r.trailer + "\r\n"
}

// answerAlways answers every request with a response. The requests have no
// body.
func answerAlways(response []byte) func(c net.Conn) {
	return func(c net.Conn) {
		buf := make([]byte, 4<<10)
		for kept := 0; ; {
			n, err := c.Read(buf[kept:])
			if err != nil {
				return
			}
			if kept += n; !bytes.HasSuffix(buf[:kept], []byte("\r\n\r\n")) {
				continue
			}
			kept = 0
			if _, err := c.Write(response); err != nil {
				return
			}
		}
	}
}

// The CPU cost of an upstream's response is small and proportional to its size.
func TestCPUForEachByteOfAResponse(t *testing.T) {
	for i := range responseRows {
		row := &responseRows[i]
		t.Run(row.name, func(t *testing.T) {
			w := newTestbed(t)
			response := row.response()
			_, address := w.plain(w.newBack(backs.Options{Upstream: plaintext(w.raw(nil, answerAlways([]byte(response)))), Protocol: backs.HTTP1}))
			c := w.dial(address)
			buf := make([]byte, 64<<10)
			exchange := func() {
				_, _ = io.WriteString(c.Conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") // the read reports a failure
				for kept := 0; ; {
					n, err := c.Conn.Read(buf[kept:])
					if err != nil {
						t.Fatal(err)
					}
					if bytes.Contains(buf[:kept+n], []byte(marker)) {
						return // the next exchange reads the rest
					}
					kept = copy(buf, buf[max(kept+n-len(marker)+1, 0):kept+n])
				}
			}
			exchange()
			least := math.Inf(1)
			exchanges := max(1, 500_000/len(response))
			if alloctest.Race {
				exchanges = 1
			}
			for run := 0; run < 10 && least > maxPerByte/2 && (run == 0 || !alloctest.Race); run++ {
				before := cpu(t)
				for range exchanges {
					exchange()
				}
				least = min(least, float64(cpu(t)-before)/float64(exchanges*len(response)))
			}
			alloctest.ReportCost(t, len(response), math.NaN(), least, row.reason)
			if least > maxPerByte && !alloctest.Race {
				t.Errorf("%.1f ns for each byte, want at most %.0f", least, float64(maxPerByte))
			}
		})
	}
}
