package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A request that kills its upstream is sent once: its connection was new, so
// idleness cannot explain the close.
func TestTheFirstRequestOnAConnectionIsNotRepeated(t *testing.T) {
	for _, p := range []backs.Protocol{backs.Auto, backs.HTTP1} {
		w := newTestbed(t)
		var seen atomic.Int32
		_, address := w.plain(w.back(p, w.raw(w.serverTLS("http/1.1"), func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				seen.Add(1) // the upstream crashes
			}
		})))
		for range 2 {
			if code, _ := w.get(w.browser(), "http://"+address); code != 502 {
				t.Errorf("%v: answered %d", p, code)
			}
		}
		if n := seen.Load(); n != 2 {
			t.Errorf("%v: two requests were sent %d times", p, n)
		}
	}
}

// If a client announces that it will wait for 100 (Continue) but sends its body,
// the body is forwarded at once.
func TestBodySentWithoutContinueIsNotDelayed(t *testing.T) {
	for _, retries := range []bool{false, true} {
		for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
			for _, secure := range []bool{false, true} {
				for _, bodyApart := range []bool{false, true} {
					// A busy machine may delay some bodies, but not all of them.
					var waited time.Duration
					for range 5 {
						if waited = bodyWithoutContinue(t, p, secure, retries, bodyApart); waited < time.Second*9/10 {
							break
						}
					}
					if waited >= time.Second*9/10 {
						t.Errorf("%v, TLS %v, retries %v, in pieces %v: the body came after %v", p, secure, retries, bodyApart, waited)
					}
				}
			}
		}
	}
}

// bodyWithoutContinue sends a request that expects a 100, followed by its body, to an
// upstream that sends no 100. It returns how long the body took to reach the
// upstream.
func bodyWithoutContinue(t *testing.T, p backs.Protocol, secure, retries, bodyApart bool) time.Duration {
	t.Helper()
	w := newTestbed(t)
	table := &Table{}
	if secure {
		table.TLS = w.listenerTLS("http/1.1")
	}
	arrived := make(chan time.Time, 1)
	table.Default = to(w.back(p, w.raw(w.serverTLS(map[backs.Protocol]string{backs.HTTP1: "http/1.1", backs.HTTP2: "h2"}[p]), func(c net.Conn) {
		// The upstream never asks for the body.
		if p == backs.HTTP2 {
			(&slowUpstream{arrived}).serve(c)
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.ReadAll(r.Body)
		arrived <- time.Now()
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})))
	if retries {
		table.Default.Forward.Retry = &everything
	}
	_, address := w.gateway(fixed(table))
	c := w.dial(address)
	defer c.Close()
	if secure {
		tc := tls.Client(c.Conn, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
		c = &rawConn{tc, bufio.NewReader(tc)}
	}
	begun := time.Now()
	head := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	if bodyApart {
		_, _ = io.WriteString(c, head)
		_, _ = io.WriteString(c, "hello")
	} else {
		_, _ = io.WriteString(c, head+"hello")
	}
	if res, _ := c.answer(t, "POST"); res.StatusCode != 200 {
		t.Errorf("%v: %d", p, res.StatusCode)
	}
	return (<-arrived).Sub(begun)
}

// A slowUpstream is an HTTP/2 upstream that sends its first byte after it has received
// a whole body.
type slowUpstream struct{ arrived chan time.Time }

func (s *slowUpstream) serve(c net.Conn) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	_ = fr.WriteSettings()
	for {
		frame, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if f, ok := frame.(*http2.DataFrame); ok && f.StreamEnded() {
			s.arrived <- time.Now()
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
		}
	}
}

// An upstream that allows no streams costs a bounded number of connections.
func TestAnUpstreamThatAllowsNoStreams(t *testing.T) {
	w := newTestbed(t)
	var mu sync.Mutex
	conns := 0
	back := w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(c, c)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		mu.Lock()
		conns++
		mu.Unlock()
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
		for {
			frame, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if f, ok := frame.(*http2.MetaHeadersFrame); ok {
				_ = fr.WriteRSTStream(f.StreamID, http2.ErrCodeRefusedStream)
			}
		}
	}))
	s, address := w.plain(back)
	browser := w.browser()
	for range 20 {
		if code, _ := w.get(browser, "http://"+address); code != 503 && code != 502 {
			t.Errorf("answered %d", code)
		}
	}
	code, _ := w.get(browser, "http://"+address)
	mu.Lock()
	n := conns
	mu.Unlock()
	if code != 503 || n > 2 {
		t.Errorf("answered %d, over %d connections", code, n)
	}
	eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
}
