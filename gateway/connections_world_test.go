package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A connWorld is a gateway with a TCP listener, "db", and HTTP listeners, "web" with TLS
// and "plain", and the servers behind them.
type connWorld struct {
	*testGateway
	tls      *tls.Config  // for clients of db and web
	echo     string       // the address of db's server
	server   string       // the address of the HTTP server
	waiting  atomic.Int32 // requests at the HTTP server that wait for released
	released chan struct{}
	requests string // the path of the access log
	client   string // fingerprint of the clients' certificate
	own      string // fingerprint of the gateway's certificate for db's server
}

func newConnWorld(t *testing.T) *connWorld {
	ca := certstest.NewCA(t)
	w := &connWorld{requests: filepath.Join(t.TempDir(), "access.log"), released: make(chan struct{})}
	w.testGateway = start(t, "", func(o *Options) { o.DrainTimeout, o.AccessLog.File = time.Second, w.requests })
	s := httptest.NewServer(http.HandlerFunc(w.handle))
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	w.echo, w.server = echo(t, ca, ca.Server(t, "up.example")), s.Listener.Addr().String()
	identity, own := ca.Client(t, "alice"), ca.Client(t, "gateway")
	w.client, w.own = certstest.Certificate(t, identity).Fingerprint(), certstest.Certificate(t, own).Fingerprint()
	w.tls = &tls.Config{RootCAs: ca.Pool(), ServerName: "front.example", Certificates: []tls.Certificate{certstest.TLS(t, identity)}}
	secure := &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"corp"}}
	db, web, plain := tcpListener("db", "127.0.0.1:0"), httpListener("web", "127.0.0.1:0"), httpListener("plain", "127.0.0.1:0")
	db.Tls, web.Tls, web.Upstream, plain.Upstream = secure, secure, "site", "site"
	web.Timeouts = &adminv1.ListenerTimeouts{Handshake: durationpb.New(deadline)}
	up := upstreamTo("up", w.echo, nil)
	up.GetTls().Certificate = "client"
	w.put(bundle("corp", ca), inlineCertificate("front", ca.Server(t, "front.example")), inlineCertificate("client", own), up, plainUpstream("site", w.server), db, web, plain)
	return w
}

// handle echoes after an upgrade, and answers a request for /held or with the field Hold
// once the test releases it.
func (w *connWorld) handle(rw http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Upgrade") != "":
		c, b, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, b)
	case r.URL.Path == "/held", r.Header.Get("Hold") != "":
		w.waiting.Add(1)
		defer w.waiting.Add(-1)
		select {
		case <-w.released:
		case <-r.Context().Done():
		}
	}
}

// A peer is a client's connection.
type peer struct {
	kind  string
	local string
	uses  func() error // exchanges data on the connection
	waits func() error // makes a request that is answered once the test releases it; nil: not an HTTP connection
	raw   net.Conn
}

var peerKinds = []string{"tcp", "http/1.1", "http/2", "tunnel"}

// connect opens a connection of a kind and exchanges data on it.
func (w *connWorld) connect(kind string) (*peer, error) {
	listener := map[string]string{"tcp": "db", "http/1.1": "web", "http/2": "web", "tunnel": "plain"}[kind]
	raw, err := net.Dial("tcp", w.address(listener))
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(10 * deadline))
	p := &peer{kind: kind, local: raw.LocalAddr().String(), raw: raw}
	config := w.tls.Clone()
	switch kind {
	case "tcp":
		p.uses = echoes(tls.Client(raw, config))
	case "http/1.1":
		c := tls.Client(raw, config)
		r := bufio.NewReader(c)
		p.uses = func() error { return exchange1(c, r, "/") }
		p.waits = func() error { return exchange1(c, r, "/held") }
	case "http/2":
		config.NextProtos = []string{"h2"}
		t := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: config, DialContext: func(context.Context, string, string) (net.Conn, error) { return raw, nil }}
		cc, err := t.NewClientConn(w.t.Context(), "https", "front.example:443")
		if err != nil {
			raw.Close()
			return nil, err
		}
		p.uses = func() error { return transport2{w.t, cc}.request("") }
		p.waits = func() error { return transport2{w.t, cc}.request("until the test's release") }
	case "tunnel":
		io.WriteString(raw, "GET / HTTP/1.1\r\nHost: site.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		r := bufio.NewReader(raw)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			raw.Close()
			return nil, fmt.Errorf("no tunnel: %v %w", resp, err)
		}
		p.uses = echoes(struct {
			io.Writer
			io.Reader
		}{raw, r})
	}
	if err := p.uses(); err != nil {
		raw.Close()
		return nil, err
	}
	return p, nil
}

var lineNumber atomic.Int64

// echoes returns a function that sends a line and reads it back.
func echoes(c io.ReadWriter) func() error {
	r := bufio.NewReader(c)
	return func() error {
		line := fmt.Sprintln("line", lineNumber.Add(1))
		if _, err := io.WriteString(c, line); err != nil {
			return err
		}
		if got, err := r.ReadString('\n'); err != nil || got != line {
			return fmt.Errorf("sent %q, got %q: %w", line, got, err)
		}
		return nil
	}
}

func exchange1(c io.Writer, r *bufio.Reader, path string) error {
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: front.example\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// must opens a connection that stays open until the test closes it or ends.
func (w *connWorld) must(kind string) *peer {
	w.t.Helper()
	p, err := w.connect(kind)
	if err != nil {
		w.t.Fatal(kind, err)
	}
	w.t.Cleanup(func() { p.raw.Close() })
	return p
}

// list returns the connections that match a filter, page by page.
func (w *connWorld) list(f *adminv1.ConnectionFilter) []*adminv1.Connection {
	w.t.Helper()
	var out []*adminv1.Connection
	var after uint64
	for {
		n := len(out)
		err := w.EachConnection(f, after, func(number uint64, c *adminv1.Connection) bool {
			out, after = append(out, c), number
			return len(out)-n < 50
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if len(out) == n {
			return out
		}
	}
}

// of returns the connection of a peer, or nil.
func (w *connWorld) of(p *peer) *adminv1.Connection {
	w.t.Helper()
	all := w.list(&adminv1.ConnectionFilter{})
	if i := slices.IndexFunc(all, func(c *adminv1.Connection) bool { return c.GetClient().GetRemoteAddress() == p.local }); i >= 0 {
		return all[i]
	}
	return nil
}
