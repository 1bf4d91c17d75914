package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	server   = "server.test:5432"
	password = "open-sesame"
)

// serve serves each connection with handle until the test ends.
func serve(t testing.TB, config *tls.Config, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			if config != nil {
				handle(tls.Server(conn, config))
			} else {
				handle(conn)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

// answers returns an HTTP proxy that sends a response to each request, and then
// echoes. It sends the requests to got.
func answers(got chan<- string, response string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		var request strings.Builder
		for !strings.HasSuffix(request.String(), "\r\n\r\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			request.WriteString(line)
		}
		if got != nil {
			got <- request.String()
		}
		io.WriteString(c, response)
		if _, err := io.Copy(c, r); err == nil {
			closeWrite(c)
		}
	}
}

// wantEcho checks that the tunnel works, and ends it.
func wantEcho(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, "hello")
	if err := closeWrite(conn); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
		t.Errorf("the tunnel echoes %q, %v", got, err)
	}
	conn.Close()
}

func TestHTTPProxiesReceiveCONNECT(t *testing.T) {
	ca := certstest.NewCA(t)
	client, err := certs.NewClient(certs.ClientOptions{ServerName: "proxy.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{"plaintext": nil, "TLS": {Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "proxy.test"))}}} {
		for _, credentials := range []string{"", "user:" + password} {
			got := make(chan string, 1)
			p := &Proxy{Address: serve(t, config, answers(got, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n"))}
			if config != nil {
				p.TLS = client
			}
			want := "CONNECT " + server + " HTTP/1.1\r\nHost: " + server + "\r\n\r\n"
			if credentials != "" {
				p.Username, p.Password = "user", password
				want = strings.TrimSuffix(want, "\r\n") + "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials)) + "\r\n\r\n"
			}
			conn, err := p.Dial(t.Context(), "tcp", server)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if request := <-got; request != want {
				t.Errorf("%s: the proxy got %q", name, request)
			}
			wantEcho(t, conn)
		}
	}
}

// The server's first bytes arrive complete, for each form of the proxy's
// response.
func TestNoDataOfTheServerIsLost(t *testing.T) {
	for _, head := range []string{"HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 OK\n\n", "HTTP/1.1 299 x\r\nA: b\r\nContent-Length: 100\r\n\r\n"} {
		p := &Proxy{Address: serve(t, nil, answers(nil, head+"\r\n220 server\r\n"))}
		conn, err := p.Dial(t.Context(), "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 14)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "\r\n220 server\r\n" {
			t.Errorf("after %q: %q, %v", head, got, err)
		}
		conn.Close()
	}
}

func TestFailuresSayWhetherTheProxyOrTheServerFailed(t *testing.T) {
	ca := certstest.NewCA(t)
	strict, err := certs.NewClient(certs.ClientOptions{ServerName: "other.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "proxy.test"))}}
	stall := make(chan struct{}, 1) // a proxy stops answering
	silent := func(c net.Conn) {
		c.Read(make([]byte, 1))
		stall <- struct{}{}
		io.Copy(io.Discard, c)
	}
	closed := sockettest.Free(t)
	reply := func(code byte) func(net.Conn) {
		return func(c net.Conn) {
			io.ReadFull(c, make([]byte, 4))
			c.Write([]byte{5, 0})
			io.ReadFull(c, make([]byte, 4+1+11+2))
			c.Write([]byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0})
			io.Copy(io.Discard, c)
		}
	}
	sends := func(s string) func(net.Conn) {
		return func(c net.Conn) { io.WriteString(c, s); io.Copy(io.Discard, c) }
	}
	for name, c := range map[string]struct {
		protocol Protocol
		config   *tls.Config
		handle   func(net.Conn)
		reason   certs.Reason
		text     string
	}{
		"HTTP, unreachable":                      {handle: nil, reason: certs.ReasonEgressProxyFailed, text: "cannot be reached"},
		"HTTP, silent":                           {handle: silent, reason: certs.ReasonConnectTimeout, text: "did not answer CONNECT"},
		"HTTP, closes":                           {handle: func(net.Conn) {}, reason: certs.ReasonEgressProxyFailed, text: "did not answer CONNECT"},
		"HTTP, a certificate for another name":   {config: config, handle: func(c net.Conn) { io.Copy(io.Discard, c) }, reason: certs.ReasonEgressProxyFailed, text: "does not complete the TLS handshake"},
		"HTTP, another protocol":                 {handle: sends("SSH-2.0-x\r\n\r\n"), reason: certs.ReasonEgressProxyFailed, text: "not HTTP"},
		"HTTP, a status that is not a number":    {handle: sends("HTTP/1.1 abc\r\n\r\n"), reason: certs.ReasonEgressProxyFailed, text: "not HTTP"},
		"HTTP, a header without an end":          {handle: sends("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 20_000)), reason: certs.ReasonEgressProxyFailed, text: "more than 16384 bytes"},
		"HTTP, interim responses without an end": {handle: sends(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000)), reason: certs.ReasonEgressProxyFailed, text: "more than 16384 bytes"},
		"HTTP, 407":                              {handle: answers(nil, "HTTP/1.1 407 Proxy \x1b[31mAuthentication Required\r\n\r\n"), reason: certs.ReasonEgressProxyRefused, text: `rejects the credentials: it answered CONNECT server.test:5432 with "407 Proxy \x1b[31m`},
		"HTTP, 403":                              {handle: answers(nil, "HTTP/1.1 403 Forbidden\r\n\r\n"), reason: certs.ReasonEgressProxyRefused, text: "refuses the server"},
		"HTTP, 502":                              {handle: answers(nil, "HTTP/1.1 502 Bad Gateway\r\n\r\n"), reason: certs.ReasonUnreachable, text: "could not connect to the server"},
		"HTTP, 504":                              {handle: answers(nil, "HTTP/1.1 504 Gateway Timeout\r\n\r\n"), reason: certs.ReasonConnectTimeout, text: "in time"},
		"SOCKS, unreachable":                     {protocol: SOCKS5, handle: nil, reason: certs.ReasonEgressProxyFailed, text: "cannot be reached"},
		"SOCKS, silent":                          {protocol: SOCKS5, handle: silent, reason: certs.ReasonEgressProxyFailed, text: "did not answer"},
		"SOCKS, silent after the method": {protocol: SOCKS5, handle: func(c net.Conn) {
			io.ReadFull(c, make([]byte, 4))
			c.Write([]byte{5, 0})
			silent(c)
		}, reason: certs.ReasonConnectTimeout, text: "did not answer the request for"},
		"SOCKS, closes":               {protocol: SOCKS5, handle: func(net.Conn) {}, reason: certs.ReasonEgressProxyFailed, text: "failed the request"},
		"SOCKS, another protocol":     {protocol: SOCKS5, handle: sends("HTTP/1.1 400 Bad Request\r\n\r\n"), reason: certs.ReasonEgressProxyFailed, text: "unexpected protocol version"},
		"SOCKS, no acceptable method": {protocol: SOCKS5, handle: sends("\x05\xff"), reason: certs.ReasonEgressProxyRefused, text: "demands other credentials"},
		"SOCKS, wrong password":       {protocol: SOCKS5, handle: sends("\x05\x02\x01\x01"), reason: certs.ReasonEgressProxyRefused, text: "rejects the credentials"},
		"SOCKS, general failure":      {protocol: SOCKS5, handle: reply(1), reason: certs.ReasonUnreachable, text: "general SOCKS server failure"},
		"SOCKS, forbidden by rules":   {protocol: SOCKS5, handle: reply(2), reason: certs.ReasonEgressProxyRefused, text: "refuses the server"},
		"SOCKS, network unreachable":  {protocol: SOCKS5, handle: reply(3), reason: certs.ReasonUnreachable, text: "network unreachable"},
		"SOCKS, host unreachable":     {protocol: SOCKS5, handle: reply(4), reason: certs.ReasonUnreachable, text: "host unreachable"},
		"SOCKS, connection refused":   {protocol: SOCKS5, handle: reply(5), reason: certs.ReasonConnectRefused, text: "connection refused"},
		"SOCKS, TTL expired":          {protocol: SOCKS5, handle: reply(6), reason: certs.ReasonConnectTimeout, text: "TTL expired"},
		"SOCKS, unsupported command":  {protocol: SOCKS5, handle: reply(7), reason: certs.ReasonEgressProxyFailed, text: "command not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Proxy{Protocol: c.protocol, Address: closed, Username: "user", Password: password}
			if c.handle != nil {
				p.Address = serve(t, c.config, c.handle)
			}
			if c.config != nil {
				p.TLS = strict
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if strings.Contains(name, "silent") {
				go func() {
					<-stall
					cancel()
				}()
			}
			defer cancel()
			conn, err := p.Dial(ctx, "tcp", server)
			if err == nil {
				conn.Close()
				t.Fatal("the failed request opened a tunnel")
			}
			if got := certs.Classify(err); got != c.reason || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), p.Address) {
				t.Errorf("%v: %v", got, err)
			}
			if text := err.Error(); strings.Contains(text, password) || strings.Contains(text, "\x1b") || len(text) > 2000 {
				t.Errorf("the error is %q", text)
			}
		})
	}
}

func TestSOCKSProxiesReceiveConnectRequests(t *testing.T) {
	for _, credentials := range []bool{false, true} {
		got := make(chan string, 1)
		p := &Proxy{Protocol: SOCKS5, Address: serve(t, nil, func(c net.Conn) {
			var said strings.Builder
			take := func(n int) { said.Write(readN(c, n)) }
			if credentials {
				take(4)
				c.Write([]byte{5, 2})
				take(2 + 4 + 1 + len(password))
				c.Write([]byte{1, 0})
			} else {
				take(3)
				c.Write([]byte{5, 0})
			}
			take(4 + 1 + 11 + 2)
			got <- said.String()
			c.Write([]byte("\x05\x00\x00\x03\x04name\x00\x01hi"))
			io.Copy(c, c)
			closeWrite(c)
		})}
		want := "\x05\x01\x00"
		if credentials {
			p.Username, p.Password = "user", password
			want = "\x05\x02\x00\x02\x01\x04user\x0b" + password
		}
		conn, err := p.Dial(t.Context(), "tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		if _, kernel := conn.(*net.TCPConn); !kernel {
			t.Errorf("the connection is a %T", conn)
		}
		if sent := <-got; sent != want+"\x05\x01\x00\x03\x0bserver.test\x15\x38" {
			t.Errorf("the proxy got %q", sent)
		}
		if first := string(readN(conn, 2)); first != "hi" {
			t.Errorf("the server's first bytes are %q", first)
		}
		wantEcho(t, conn)
	}
}

// readN reads n bytes.
func readN(c net.Conn, n int) []byte {
	buf := make([]byte, n)
	n, _ = io.ReadFull(c, buf)
	return buf[:n]
}

// A tunnel over TLS to the proxy ends when its caller closes it, even while the proxy
// keeps its side open.
func TestATunnelEndsWithItsCaller(t *testing.T) {
	ca := certstest.NewCA(t)
	client, err := certs.NewClient(certs.ClientOptions{ServerName: "proxy.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	p := &Proxy{TLS: client, Address: serve(t, &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "proxy.test"))}}, func(c net.Conn) {
		r := bufio.NewReader(c)
		for line := "-"; line != "\r\n"; {
			line, _ = r.ReadString('\n')
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		_, err := io.Copy(io.Discard, r) // close_notify, or the end of the connection
		if err == nil {
			_, err = c.(*tls.Conn).NetConn().Read(make([]byte, 1))
		}
		ended <- err
	})}
	conn, err := p.Dial(t.Context(), "tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-ended; err == nil {
		t.Error("the proxy still gets bytes")
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 407\n\n", "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200 y\r\nA: b\r\n\r\nrest", "SSH-2.0\r\n\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		r := strings.NewReader(said)
		status, err := readStatus(r)
		if err != nil {
			return
		}
		if len(status) < 3 {
			t.Fatalf("the status is %q", status)
		}
		// The last byte read ends a line, and no header ends before that byte.
		read := said[:len(said)-r.Len()]
		if !strings.HasSuffix(read, "\n") || len(read) > maxHeader {
			t.Fatalf("read %q", read)
		}
	})
}
