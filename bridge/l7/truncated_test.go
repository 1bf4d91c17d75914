package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// A response that ends with its connection and is cut off by a reset never looks
// complete to the client, even if an upload is the first to see the reset.
func TestResetResponsesDoNotLookComplete(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		w := newTestbed(t)
		table := &Table{}
		if scheme == "https" {
			table.TLS = w.listenerTLS("h2")
		}
		back := w.newBack(backs.Options{Upstream: plaintext(w.raw(nil, func(c net.Conn) {
			r := bufio.NewReader(c)
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\nhalf of it")
			_, _ = r.Read(make([]byte, 1000)) // the upload continues
			_ = c.(*net.TCPConn).SetLinger(0)
		}))})
		table.Default = to(back)
		s, address := w.gateway(fixed(table))
		for range 40 {
			body, upload := io.Pipe()
			go func() {
				for {
					if _, err := io.WriteString(upload, strings.Repeat("x", 100)); err != nil {
						return
					}
				}
			}()
			req, _ := http.NewRequest("POST", scheme+"://"+address, body)
			res, err := w.browser().Do(req)
			if err == nil {
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err == nil && res.StatusCode == 200 {
					t.Errorf("%s: %q looks complete", scheme, got)
				}
			}
			body.Close()
		}
		eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
	}
}

// A response that ends with its connection and is cut off never looks complete to an
// HTTP/1.0 client, whose response ends with the connection too.
func TestResponsesThatEndWithTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(c net.Conn)
		tls   bool
		whole bool
	}{
		"end of the stream":     {func(c net.Conn) { c.Close() }, false, true},
		"reset":                 {func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() }, false, false},
		"TLS's close_notify":    {func(c net.Conn) { _ = c.(*tls.Conn).CloseWrite(); c.Close() }, true, true},
		"no close_notify":       {func(c net.Conn) { c.(*tls.Conn).NetConn().Close() }, true, false},
		"TLS, reset":            {func(c net.Conn) { n := c.(*tls.Conn).NetConn(); _ = n.(*net.TCPConn).SetLinger(0); n.Close() }, true, false},
		"an end by the gateway": {nil, false, false},
	} {
		for _, secure := range []bool{false, true} {
			w := newTestbed(t)
			started := make(chan bool, 1)
			serve := func(conn net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\nhello")
				started <- true
				if c.end != nil {
					c.end(conn)
					return
				}
				_, _ = conn.Read(make([]byte, 1))
			}
			var back *backs.Pools
			if c.tls {
				back = w.back(backs.HTTP1, w.raw(w.serverTLS("http/1.1"), serve))
			} else {
				back = w.newBack(backs.Options{Upstream: plaintext(w.raw(nil, serve))})
			}
			table := &Table{Default: to(back)}
			if secure {
				table.TLS = w.listenerTLS("http/1.1")
			}
			s, address := w.gateway(fixed(table))
			conn := w.dial(address)
			if secure {
				tc := tls.Client(conn.Conn, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
				conn = &rawConn{tc, bufio.NewReader(tc)}
			}
			conn.send("GET / HTTP/1.0", "Host: a")
			<-started
			if c.end == nil {
				head, err := http.ReadResponse(conn.r, nil)
				if err == nil {
					_, _ = head.Body.Read(make([]byte, 1))
				}
				s.intake.Each(func(o intake.Owner) { o.Cut(intake.ErrShutdown) })
			}
			all, err := io.ReadAll(conn.r)
			if (err == nil && strings.HasSuffix(string(all), "hello") || c.end == nil && err == nil) != c.whole {
				t.Errorf("%s, client with TLS %v: %q, %v", name, secure, all, err)
			}
			conn.Close()
		}
	}
}
