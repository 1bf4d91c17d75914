package l7

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// connects serves HTTP/2 connections whose settings allow or forbid WebSockets. It
// handshakes first if the connection uses TLS.
func connects(allow bool, f func(*http2.ServerStream)) func(net.Conn) {
	return func(c net.Conn) {
		if tc, ok := c.(*tls.Conn); ok && tc.Handshake() != nil {
			return
		}
		_ = http2.NewServerConn(c, nil, http2.Options{ExtendedConnect: allow}).Serve(f)
	}
}

// The key of RFC 6455, section 1.3, and its answer.
const sampleKey, sampleAccept = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

// An HTTP/1.1 client gets a WebSocket from an HTTP/2 upstream, with TLS and
// without.
func TestWebSocketsFromHTTP2(t *testing.T) {
	for _, secure := range []bool{true, false} {
		t.Run(map[bool]string{true: "TLS", false: "plaintext"}[secure], func(t *testing.T) {
			w := newTestbed(t)
			got := make(chan string, 1)
			serve := connects(true, func(s *http2.ServerStream) {
				r := s.Request()
				version, _ := r.Fields.Get("sec-websocket-version")
				if r.Method != "CONNECT" || r.Protocol != "websocket" || r.Authority != "a.test" || version != "13" ||
					r.Fields.Has("sec-websocket-key") || r.Scheme != map[bool]string{true: "https", false: "http"}[secure] {
					t.Errorf("the upstream was asked %+v", r)
				}
				switch r.Target {
				case "/no":
					_ = s.Respond(&message.Response{Status: 403, Length: 2}, false)
					_ = s.Write([]byte("no"))
					_ = s.End(nil)
					return
				case "/reset":
					_ = s.Respond(&message.Response{Status: 200, Length: -1}, false)
					_ = s.Write([]byte("hello"))
					_ = s.Flush()
					_, _ = s.Read()
					s.Abort(io.ErrClosedPipe)
					return
				}
				_ = s.Respond(&message.Response{Status: 200, Length: -1, Fields: message.Fields{{Name: "sec-websocket-protocol", Value: "chat"}}}, false)
				_ = s.Write([]byte("hello"))
				_ = s.Flush()
				got <- rest(s)
				_ = s.Write([]byte("bye"))
				_ = s.End(nil)
			})
			back := w.newBack(backs.Options{Upstream: plaintext(w.raw(nil, serve)), Protocol: backs.HTTP2})
			if secure {
				back = w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), serve))
			}
			_, address := w.plain(back)
			ask := func(path string, after string) (*rawConn, *http.Response) {
				c := w.dial(address)
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n%s", path, sampleKey, after)
				res, err := http.ReadResponse(c.r, nil)
				if err != nil {
					t.Fatal(err)
				}
				return c, res
			}

			c, res := ask("/chat", "early ")
			if h := res.Header; res.StatusCode != 101 || h.Get("Upgrade") != "websocket" || h.Get("Connection") != "Upgrade" ||
				h.Get("Sec-WebSocket-Accept") != sampleAccept || h.Get("Sec-WebSocket-Protocol") != "chat" {
				t.Errorf("%+v", res)
			}
			hello := make([]byte, 5)
			if _, err := io.ReadFull(c.r, hello); string(hello) != "hello" {
				t.Errorf("%q %v", hello, err)
			}
			fmt.Fprint(c, "frames")
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			if got := <-got; got != "early frames end" {
				t.Errorf("the upstream got %q", got)
			}
			if b, err := io.ReadAll(c.r); string(b) != "bye" || err != nil {
				t.Errorf("%q %v", b, err)
			}

			c, _ = ask("/chat", "")
			_ = c.Conn.(*net.TCPConn).SetLinger(0)
			c.Close() // resets the connection
			if got := <-got; got != " CANCEL" {
				t.Errorf("the upstream got %q", got)
			}

			c, _ = ask("/reset", "")
			if _, err := io.ReadFull(c.r, hello); string(hello) != "hello" {
				t.Errorf("%q %v", hello, err)
			}
			fmt.Fprint(c, "ready")
			if b, err := io.ReadAll(c.r); len(b) > 0 || err == nil {
				t.Errorf("%q %v", b, err)
			}

			_, res = ask("/no", "")
			if b, err := io.ReadAll(res.Body); res.StatusCode != 403 || string(b) != "no" || res.Header.Get("Sec-WebSocket-Accept") != "" || err != nil {
				t.Errorf("%+v %q %v", res, b, err)
			}
		})
	}
}

// An upgrade that an HTTP/2 upstream cannot serve is rejected, and the log says why.
// It does not count as a failure of the endpoint.
func TestUpgradesThatHTTP2CannotExpress(t *testing.T) {
	const websocket = "Upgrade: websocket"
	key := "Sec-WebSocket-Key: " + sampleKey
	for _, c := range []struct {
		name   string
		allow  bool
		method string
		fields []string
		want   int
		log    string
	}{
		{"not allowed", false, "GET", []string{websocket, key}, 502, "its settings allow no WebSocket (RFC 8441)"},
		{"another protocol", true, "GET", []string{"Upgrade: raw"}, 501, "a connection can switch only to WebSocket"},
		{"one of several", true, "GET", []string{"Upgrade: websocket, raw", key}, 501, "a connection can switch only to WebSocket"},
		{"no key", true, "GET", []string{websocket}, 400, "one Sec-WebSocket-Key of 16 bytes"},
		{"two keys", true, "GET", []string{websocket, key, key}, 400, "one Sec-WebSocket-Key of 16 bytes"},
		{"a short key", true, "GET", []string{websocket, "Sec-WebSocket-Key: c2hvcnQ="}, 400, "one Sec-WebSocket-Key of 16 bytes"},
		{"a key that is not base64", true, "GET", []string{websocket, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=!"}, 400, "one Sec-WebSocket-Key of 16 bytes"},
		{"another method", true, "DELETE", []string{websocket, key}, 400, "a WebSocket needs GET"},
		{"to HTTP/2", true, "GET", []string{"Upgrade: h2c"}, 200, ""}, // handled like an ordinary request
		{"no upgrade", true, "GET", nil, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTestbed(t)
			back := w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), connects(c.allow, func(s *http2.ServerStream) {
				_ = s.Respond(&message.Response{Status: 200}, true)
				if c.want != 200 {
					t.Errorf("the upstream was asked %+v", s.Request())
				}
			})))
			_, address := w.plain(back)
			client := w.dial(address)
			client.send(append([]string{c.method + " / HTTP/1.1", "Host: a", "Connection: Upgrade"}, c.fields...)...)
			if res, _ := client.answer(t, c.method); res.StatusCode != c.want {
				t.Errorf("%d", res.StatusCode)
			}
			if log := w.log.String(); !strings.Contains(log, c.log) {
				t.Errorf("the log says %s", log)
			}
			if st := back.Upstream().Status()[0]; st.LastFailure != nil {
				t.Errorf("the failure counts for the endpoint: %+v", st)
			}
		})
	}
}

// Where the version is negotiated, WebSockets go over HTTP/2 only if the upstream
// accepts them there.
func TestWebSocketsWhereTheVersionIsNegotiated(t *testing.T) {
	for _, allow := range []bool{true, false} {
		w := newTestbed(t)
		asked := make(chan string, 1)
		back := w.back(backs.Auto, w.raw(w.serverTLS("h2", "http/1.1"), func(c net.Conn) {
			if tc := c.(*tls.Conn); tc.Handshake() == nil && tc.ConnectionState().NegotiatedProtocol != "h2" {
				asked <- "HTTP/1.1"
				fmt.Fprint(c, "HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				_, _ = io.Copy(io.Discard, c)
				return
			}
			connects(allow, func(s *http2.ServerStream) {
				asked <- "HTTP/2"
				_ = s.Respond(&message.Response{Status: 403}, true)
			})(c)
		}))
		_, address := w.plain(back)
		c := w.dial(address)
		c.send("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: "+sampleKey)
		if res, _ := c.answer(t, "GET"); res.StatusCode != 403 {
			t.Errorf("%d", res.StatusCode)
		}
		if got := <-asked; got != map[bool]string{true: "HTTP/2", false: "HTTP/1.1"}[allow] {
			t.Errorf("allowed %v, it was asked in %s", allow, got)
		}
	}
}

// If a client leaves while the gateway waits for the upstream's settings, nothing
// of its request remains.
func TestAClientThatLeavesBeforeItsWebSocketIsAllowed(t *testing.T) {
	w := newTestbed(t)
	accepted := make(chan struct{})
	s, address := w.plain(w.newBack(backs.Options{Protocol: backs.HTTP2, Upstream: upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: w.raw(nil, func(c net.Conn) {
			close(accepted)
			_, _ = io.Copy(io.Discard, c) // never sends its settings
		})}}})}))
	c := w.dial(address)
	c.send("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: "+sampleKey)
	<-accepted
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
}

// An HTTP/2 client gets a WebSocket from an HTTP/2 upstream; in between, the gateway
// handles the request in its HTTP/1.1 form.
func TestWebSocketsFromHTTP2OverHTTP2(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), connects(true, func(s *http2.ServerStream) {
		if s.Request().Protocol != "websocket" || s.Request().Fields.Has("sec-websocket-key") {
			t.Errorf("the upstream was asked %+v", s.Request())
		}
		_ = s.Respond(&message.Response{Status: 200, Length: -1}, false)
		_ = s.Flush()
		_ = s.Write([]byte(rest(s)))
		_ = s.End(nil)
	}))))
	client := w.dial2(address)
	s := client.Open()
	defer s.Done()
	if !s.Connects() {
		t.Fatal("the gateway accepts no extended CONNECT")
	}
	if err := s.Send(&message.Request{Method: "CONNECT", Protocol: "websocket", Scheme: "http", Authority: "a.test", Target: "/", Length: -1}, false); err != nil {
		t.Fatal(err)
	}
	_ = s.Write([]byte("frames"))
	_ = s.End(nil)
	var head message.Response
	if err := s.Receive(&head); err != nil || head.Status != 200 || head.Fields.Has("sec-websocket-accept") {
		t.Errorf("%+v %v", head, err)
	}
	if got := rest(s); got != "frames end end" {
		t.Errorf("%q", got)
	}
}
