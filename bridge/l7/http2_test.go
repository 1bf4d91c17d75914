package l7

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// ask sends one HTTP/2 request, field by field, on a new connection. It returns
// the status of the response, or "" if the stream or the connection was
// refused.
func ask(t *testing.T, w *testbed, address string, header ...string) string {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return askOn(t, c, header...)
}

// askOn makes the first request on a connection.
func askOn(t *testing.T, c *tls.Conn, header ...string) string {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(testTimeout))
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, h := range header {
		i := strings.Index(h[1:], ": ") + 1
		_ = e.WriteField(hpack.HeaderField{Name: h[:i], Value: h[i+2:]})
	}
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return ""
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return ""
		case *http2.SettingsFrame:
			if n, ok := frame.Value(http2.SettingMaxConcurrentStreams); ok && n != maxStreams {
				t.Errorf("%d concurrent streams", n)
			}
		}
	}
}

// A request that HTTP/2 can express but HTTP/1.1 would read differently never
// reaches an upstream.
func TestHTTP2RequestsAmbiguousInHTTP1AreRefused(t *testing.T) {
	w := newTestbed(t)
	var reached atomic.Int64
	_, address := w.gateway(fixed(&Table{TLS: w.listenerTLS("h2"), Default: to(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))))}))
	get := []string{":method: GET", ":scheme: https", ":path: /", ":authority: a"}
	if got := ask(t, w, address, get...); got != "200" || reached.Load() != 1 {
		t.Fatalf("a good request: %q, %d reached the upstream", got, reached.Load())
	}
	for _, header := range [][]string{
		append(get, "transfer-encoding: chunked"),
		append(get, "connection: close"),
		append(get, "upgrade: h2c"),
		append(get, "te: gzip"),
		append(get, "x: a\r\nHost: b"),
		append(get, "X-Upper: a"),
		append(get, "x y: a"),
		append(get, "content-length: 5"),
		append(get, "host: b"),
		{":method: GET", ":scheme: https", ":path: /", ":authority: a,b"},
		{":method: GET", ":scheme: https", ":path: /", ":authority: user@a"},
		{":method: GET", ":scheme: https", ":path: /", ":authority: a/b"},
		{":method: GET", ":scheme: https", ":path: /"},
		{":method: GET", ":scheme: https", ":path: /?a HTTP/1.1\r\nX: y", ":authority: a"},
		{":method: GET", ":scheme: https", ":path: /?a HTTP/1.1", ":authority: a"},
		{":method: GET", ":scheme: https", ":path: /a/../..", ":authority: a"},
		{":method: GET", ":scheme: https", ":path: *", ":authority: a"},
		{":method: GET / HTTP/1.1", ":scheme: https", ":path: /", ":authority: a"},
		{":method: CONNECT", ":authority: a:443"},
	} {
		if got := ask(t, w, address, header...); got != "" && got != "400" && got != "405" {
			t.Errorf("%q: %s", header, got)
		}
	}
	if n := reached.Load(); n != 1 {
		t.Errorf("%d of them reached the upstream", n-1)
	}
}

// When a connection ends, the buffers with its unread bytes are returned to the
// pool.
func TestBuffersOfAnEndedConnectionAreReturned(t *testing.T) {
	w := newTestbed(t)
	s := New(Options{Table: fixed(&Table{})})
	var lent atomic.Int64
	s.buffers.Count(&lent)
	c := w.dial(w.serve(s))
	fmt.Fprint(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+strings.Repeat("no frames", 100_000))
	_, _ = io.Copy(io.Discard, c)
	eventually(t, "the connection is gone, and no buffer is lent", func() bool { return s.Stats().Open == 0 && lent.Load() == 0 })
}

// A sentCount counts the bytes written to a connection.
type sentCount struct {
	net.Conn
	sent atomic.Uint64
}

func (c *sentCount) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(uint64(n))
	return n, err
}

func TestBytesOfHTTP2AreCounted(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			w := newTestbed(t)
			table, scheme := &Table{Default: to(w.back(backs.HTTP1, w.server(echo)))}, "http"
			if secure {
				table.TLS, scheme = w.listenerTLS("h2"), "https"
			}
			s, address := w.gateway(fixed(table))
			c := &sentCount{Conn: w.dial(address).Conn}
			var protocols http.Protocols
			protocols.SetHTTP2(secure)
			protocols.SetUnencryptedHTTP2(!secure)
			transport := &http.Transport{
				Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
				TLSClientConfig: &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"},
			}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for range 3 {
				res, err := client.Post(scheme+"://"+address+"/", "text/plain", strings.NewReader(strings.Repeat("x", 50_000)))
				if err != nil || res.StatusCode != 200 || res.ProtoMajor != 2 {
					t.Fatal(res, err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			eventually(t, "every byte is counted", func() bool { return s.Stats().BytesFromClient == c.sent.Load() })
		})
	}
}
