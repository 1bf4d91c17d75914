package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// schemes runs a test on a plaintext and on a TLS listener.
func schemes(t *testing.T, f func(t *testing.T, w *testbed, table *Table, scheme string)) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			w, table := newTestbed(t), &Table{}
			if scheme == "https" {
				table.TLS = w.listenerTLS("h2", "http/1.1")
			}
			f(t, w, table, scheme)
		})
	}
}

// Each side waits for the other's line before it sends its next, so the gateway
// must not hold back any bytes.
func TestBodiesStreamBothWaysAtOnce(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			table.Default = to(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				control := http.NewResponseController(rw)
				if r.ProtoMajor == 1 {
					_ = control.EnableFullDuplex()
				}
				_ = control.Flush()
				for lines := bufio.NewScanner(r.Body); lines.Scan(); {
					fmt.Fprintf(rw, "got %s\n", lines.Text())
					_ = control.Flush()
				}
			}), "h2", "http/1.1")))
			_, address := w.gateway(fixed(table))
			in, out := io.Pipe()
			res, err := w.browser().Post(scheme+"://"+address, "text/plain", in)
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(res.Body)
			for i := range 50 {
				fmt.Fprintf(out, "line %d\n", i)
				if !lines.Scan() || lines.Text() != fmt.Sprintf("got line %d", i) {
					t.Fatalf("%q, %v", lines.Text(), lines.Err())
				}
			}
			out.Close()
			if lines.Scan() || lines.Err() != nil {
				t.Errorf("more: %q, %v", lines.Text(), lines.Err())
			}
			res.Body.Close()
		})
	}
}

func TestTrailersAndEarlyHints(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			table.Default = to(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Link", "</x>")
				rw.WriteHeader(http.StatusEarlyHints)
				b, _ := io.ReadAll(r.Body)
				rw.Header().Set("Trailer", "Announced")
				fmt.Fprintf(rw, "%s with %s", b, r.Trailer.Get("Sum"))
				rw.Header().Set("Announced", "1")
				rw.Header().Set(http.TrailerPrefix+"Surprise", "2")
			}), "h2", "http/1.1")))
			_, address := w.gateway(fixed(table))
			hints := ""
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints += fmt.Sprint(code, h.Get("Link"))
				return nil
			}})
			r, _ := http.NewRequestWithContext(ctx, "POST", scheme+"://"+address, io.MultiReader(strings.NewReader("body")))
			r.Trailer = http.Header{"Sum": {"42"}}
			res, err := w.browser().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(b) != "body with 42" || res.Trailer.Get("Announced") != "1" || res.Trailer.Get("Surprise") != "2" || hints != "103</x>" {
				t.Errorf("%q, %v, trailers %v, hints %q", b, err, res.Trailer, hints)
			}
		})
	}
}

func TestWebSockets(t *testing.T) {
	chat := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	})
	for _, p := range []backs.Protocol{backs.HTTP1, backs.Auto, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			upstream := w.server(chat, "h2", "http/1.1")
			if p == backs.HTTP2 { // another gateway, which accepts WebSockets over HTTP/2, unlike net/http's server
				_, upstream = w.gateway(fixed(&Table{TLS: w.listenerTLS("h2"), Default: to(w.back(backs.HTTP1, upstream))}))
			}
			back := w.back(p, upstream)
			table.Default = to(back)
			s, address := w.gateway(fixed(table))
			tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"}}
			defer tr.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			c, _, err := websocket.Dial(ctx, scheme+"://"+address+"/chat", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}, Subprotocols: []string{"chat"}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			c.SetReadLimit(-1)
			if c.Subprotocol() != "chat" {
				t.Errorf("subprotocol %q", c.Subprotocol())
			}
			for _, size := range []int{0, 1, 125, 70000, 1 << 20} {
				want := strings.Repeat("x", size)
				if err := c.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
					t.Fatal(err)
				}
				if _, got, err := c.Read(ctx); err != nil || string(got) != want {
					t.Fatalf("%d bytes of %d, %v", len(got), size, err)
				}
			}
			if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
				t.Errorf("close: %v", err)
			}
			kept := map[backs.Protocol]uint64{backs.Auto: 1, backs.HTTP2: 1}[p] // HTTP/2 connections stay open for the next check
			eventually(t, "its connections are closed, and the request is counted", func() bool {
				st := s.Stats()
				return st.Open == 0 && st.Requests[101] == 1 && back.Upstream().Status()[0].Open == kept
			})
		})
	}
}

// Bytes that the client sends directly behind its request are not lost. Either
// side may end its stream first.
func TestUpgradesCarryHalfCloses(t *testing.T) {
	for _, first := range []string{"client", "upstream"} {
		w := newTestbed(t)
		ended := make(chan string, 1)
		back := w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
			r := bufio.NewReader(c)
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
			if first == "upstream" {
				fmt.Fprint(c, "bye")
				_ = c.(*tls.Conn).CloseWrite()
			}
			b, _ := io.ReadAll(r)
			if first == "client" {
				fmt.Fprintf(c, "you sent %s", b)
			}
			ended <- string(b)
		}))
		_, address := w.plain(back)
		c := w.dial(address)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nearly,")
		if _, err := http.ReadResponse(c.r, nil); err != nil {
			t.Fatal(err)
		}
		if first == "upstream" {
			if b, err := io.ReadAll(c.r); string(b) != "bye" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		}
		fmt.Fprint(c, "late")
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		if got := <-ended; got != "early,late" {
			t.Errorf("%s ends first: the upstream got %q", first, got)
		}
		if first == "client" {
			if b, err := io.ReadAll(c.r); string(b) != "you sent early,late" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		}
	}
}

// A response that the upstream aborts must not look complete.
func TestBrokenResponsesAreCutOffForTheClient(t *testing.T) {
	schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
		table.Default = to(w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
			}
		})))
		_, address := w.gateway(fixed(table))
		res, err := w.browser().Get(scheme + "://" + address)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); string(b) != "half" || err == nil {
			t.Errorf("%q, %v", b, err)
		}
		eventually(t, "the log has the line", func() bool { return strings.Contains(w.log.String(), "request failed") })
	})
}

// A complete response ends the exchange, even if the client is still sending.
func TestAnUpstreamMayAnswerBeforeTheBodyEnds(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			table.Default = to(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor == 1 {
					_ = http.NewResponseController(rw).EnableFullDuplex()
				}
				_, _ = io.ReadFull(r.Body, make([]byte, 5))
				fmt.Fprint(rw, "enough")
			}), "h2", "http/1.1")))
			_, address := w.gateway(fixed(table))
			in, out := io.Pipe()
			defer out.Close()
			go func() { _, _ = out.Write([]byte("hello")) }()
			res, err := w.browser().Post(scheme+"://"+address, "text/plain", in)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); string(b) != "enough" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}
