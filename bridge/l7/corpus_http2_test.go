package l7

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Each request of the corpus is sent to a TLS listener and, with prior
// knowledge, to a plaintext listener. It must arrive upstream as exactly one
// HTTP/1.1 request, or not at all.
func TestTheCorpusOfHTTP2(t *testing.T) {
	all := readCorpus(t, "http2.txt")
	for _, how := range []struct {
		name string
		tls  bool
	}{{"with TLS", true}, {"with prior knowledge", false}} {
		t.Run(how.name, func(t *testing.T) {
			w := newTestbed(t)
			up := new(recorder)
			table := &Table{Default: to(w.back(backs.HTTP1, w.raw(w.serverTLS(), up.serve)))}
			if how.tls {
				table.TLS = w.listenerTLS("h2")
			}
			_, address := w.gateway(fixed(table))
			defer func() {
				eventually(t, "every connection with half a request is closed", func() bool { return up.unfinished() == 0 })
			}()
			for _, c := range all {
				t.Run(c.name, func(t *testing.T) {
					peer := w.framed(t, address, how.tls)
					defer peer.Close()
					c.sendFrames(peer)
					c.checkStream(t, up, peer)
				})
			}
		})
	}
	updateCorpus(t, "http2.txt", all)
}

// A framed is a client's HTTP/2 connection on which the test writes every byte.
type framed struct {
	net.Conn
	framer *http2.Framer
	hpack  *hpack.Encoder
	block  bytes.Buffer
}

func (w *testbed) framed(t *testing.T, address string, withTLS bool) *framed {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(testTimeout))
	if withTLS {
		c = tls.Client(c, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", NextProtos: []string{"h2"}})
	}
	return newFramed(c)
}

// newFramed begins HTTP/2 on a connection.
func newFramed(c net.Conn) *framed {
	p := &framed{Conn: c}
	_, _ = io.WriteString(c, http2.ClientPreface) // the reader sees a failed write
	p.framer = http2.NewFramer(c, c)
	p.framer.AllowIllegalWrites = true
	p.hpack = hpack.NewEncoder(&p.block)
	_ = p.framer.WriteSettings()
	return p
}

// headers sends fields, each given as a line of a corpus. If it fails, the
// reader sees the end of the connection.
func (p *framed) headers(stream uint32, fields []string, end bool) {
	p.block.Reset()
	for _, f := range fields {
		at := 1 + strings.Index(f[1:], ": ")
		if strings.HasPrefix(f, ": ") {
			at = 0
		}
		_ = p.hpack.WriteField(hpack.HeaderField{Name: f[:at], Value: f[at+2:]}) // a Buffer cannot fail
	}
	const most = 16384 // maximum payload of a frame
	b := p.block.Bytes()
	first := b[:min(len(b), most)]
	b = b[len(first):]
	_ = p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(b) == 0})
	for len(b) > 0 {
		n := min(len(b), most)
		_ = p.framer.WriteContinuation(stream, n == len(b), b[:n])
		b = b[n:]
	}
}

// sendFrames sends the request of a case, and the next.
func (c *corpusCase) sendFrames(p *framed) {
	fields, data := c.sentLines, ""
	at := slices.Index(fields, "")
	if at >= 0 {
		_, data, _ = strings.Cut(c.sent, "\r\n\r\n")
		fields = fields[:at]
	}
	if c.name == "too many fields" {
		fields = slices.Concat(fields, slices.Repeat([]string{"x: y"}, 1100))
	}
	trailer := c.answerLines
	p.headers(1, fields, at < 0 && trailer == nil)
	if at >= 0 {
		_ = p.framer.WriteData(1, trailer == nil, []byte(data))
	}
	if trailer != nil {
		p.headers(1, trailer, true)
	}
	p.headers(3, []string{":method: GET", ":scheme: https", ":authority: a", ":path: /next"}, true)
}

// checkStream compares the outcome of a request with its verdict.
func (c *corpusCase) checkStream(t *testing.T, up *recorder, p *framed) {
	codes, err := p.outcomes()
	if err != nil {
		t.Errorf("the connection ended: %v", err)
	}
	requests, halves := up.take(t)
	// The gateway serves the two streams concurrently.
	if i := slices.Index(requests, nextArrives); i >= 0 {
		requests = slices.Delete(requests, i, i+1)
	} else {
		t.Error("the next request did not arrive")
	}
	if codes[3] != "200" {
		t.Errorf("the next request: %q", codes[3])
	}
	for _, half := range halves {
		if !strings.HasPrefix(half, "POST /broken HTTP/1.1\r\n") { // the request of an earlier case may arrive late
			t.Errorf("the upstream got the beginning %q", half)
		}
	}
	if c.verdict == "served" {
		if *update && len(requests) == 1 {
			c.want = requests[0]
		}
		if !slices.Equal(requests, []string{c.want}) || codes[1] != "200" {
			t.Errorf("answered %q, and the upstream got\n%s\nwant\n%s", codes[1], escape(">", strings.Join(requests, "")), escape(">", c.want))
		}
		return
	}
	if len(requests) > 0 {
		t.Errorf("the upstream got %q", requests)
	}
	_, want, exact := strings.Cut(c.verdict, " ")
	if exact && codes[1] != want || !exact && codes[1] != "400" && codes[1] != "PROTOCOL_ERROR" {
		t.Errorf("answered %q, want %s", codes[1], c.verdict)
	}
}

// outcomes reads until both streams have ended, and returns the status of each
// response, or the code with which its stream was reset.
func (p *framed) outcomes() (codes map[uint32]string, err error) {
	codes = map[uint32]string{}
	ended := map[uint32]bool{}
	d := hpack.NewDecoder(4096, nil)
	for !ended[1] || !ended[3] {
		f, err := p.framer.ReadFrame()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("%w: %v of %v", err, ended, codes)
			}
			return codes, err
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			fields, err := d.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				return codes, err
			}
			if code := fields[0].Value; fields[0].Name == ":status" && code[0] != '1' {
				codes[f.StreamID] = code
			}
			ended[f.StreamID] = ended[f.StreamID] || f.StreamEnded()
		case *http2.DataFrame:
			ended[f.StreamID] = ended[f.StreamID] || f.StreamEnded()
		case *http2.RSTStreamFrame:
			if codes[f.StreamID] == "" {
				codes[f.StreamID] = f.ErrCode.String()
			}
			ended[f.StreamID] = true
		case *http2.GoAwayFrame:
			return codes, fmt.Errorf("%v: %s", f.ErrCode, f.DebugData())
		}
	}
	return codes, nil
}
