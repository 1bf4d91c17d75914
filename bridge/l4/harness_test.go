package l4_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A gate is a running Server.
type gate struct {
	*l4.Server
	network, address string
	served           chan error // what Serve returned
}

// listen returns a listener on a kernel-chosen address.
func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// open starts a Server. The end of the test cuts its connections.
func open(t testing.TB, network string, o l4.Options) *gate {
	t.Helper()
	ln := listen(t, network)
	g := &gate{Server: l4.New(o), network: network, address: ln.Addr().String(), served: make(chan error, 1)}
	go func() { g.served <- g.Serve(ln) }()
	t.Cleanup(func() {
		g.Shutdown(cancelled())
		if err := <-g.served; err != l4.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
	return g
}

// serve starts a Server with one table.
func serve(t testing.TB, table *l4.Table) *gate {
	return open(t, "tcp", l4.Options{Listener: "test", Table: func() *l4.Table { return table }})
}

// to returns the Target of a single upstream.
func to(u *upstream.Upstream) *l4.Target {
	return &l4.Target{Upstreams: upstream.NewSplit([]upstream.Weighted[*upstream.Upstream]{{Value: u, Weight: 1}})}
}

// group returns an upstream of the endpoints given.
func group(endpoints ...upstream.EndpointOptions) *upstream.Upstream {
	return upstream.New(upstream.Options{Name: "group", Endpoints: endpoints})
}

// plain describes a plaintext endpoint.
func plain(ln net.Listener) upstream.EndpointOptions {
	return upstream.EndpointOptions{Network: ln.Addr().Network(), Address: ln.Addr().String()}
}

// over describes a TLS endpoint.
func over(t testing.TB, ln net.Listener, o certs.ClientOptions) upstream.EndpointOptions {
	t.Helper()
	c, err := certs.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	e := plain(ln)
	e.Stream = c
	return e
}

// A peer is the test's end of a connection. It records what crypto/tls hides: whether a
// stream ended with close_notify or was cut off.
type peer struct {
	net.Conn
	raw *rawConn
}

type rawConn struct {
	net.Conn
	eof     atomic.Bool
	records atomic.Pointer[recordLayer] // nil: writes pass through unchanged
}

func (c *rawConn) Write(p []byte) (int, error) {
	if r := c.records.Load(); r != nil {
		return r.Write(p)
	}
	return c.Conn.Write(p)
}

func (c *rawConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		c.eof.Store(true)
	}
	return n, err
}

// newPeer wraps raw, with TLS on it if wrap is not nil.
func newPeer(raw net.Conn, wrap func(net.Conn) *tls.Conn) *peer {
	p := &peer{raw: &rawConn{Conn: raw}}
	p.Conn = p.raw
	if wrap != nil {
		p.Conn = wrap(p.raw)
	}
	return p
}

func client(o *tls.Config) func(net.Conn) *tls.Conn {
	if o == nil {
		return nil
	}
	return func(c net.Conn) *tls.Conn { return tls.Client(c, o) }
}

func server(o *tls.Config) func(net.Conn) *tls.Conn {
	if o == nil {
		return nil
	}
	return func(c net.Conn) *tls.Conn { return tls.Server(c, o) }
}

// dial connects to the gate, over TLS if config is not nil.
func (g *gate) dial(t testing.TB, config *tls.Config) *peer {
	t.Helper()
	raw, err := net.Dial(g.network, g.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return newPeer(raw, client(config))
}

// wantRefused connects and expects a reset, which may arrive before connect returns.
func (g *gate) wantRefused(t testing.TB) {
	t.Helper()
	raw, err := net.Dial(g.network, g.address)
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	newPeer(raw, nil).wantEnd(t, "", reset)
}

// accept waits for the gate to connect.
func accept(t testing.TB, ln net.Listener, config *tls.Config) *peer {
	t.Helper()
	raw, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return newPeer(raw, server(config))
}

// echo accepts connections until the test ends, and echoes each.
func echo(t testing.TB, ln net.Listener, config *tls.Config) {
	var conns sync.WaitGroup
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer raw.Close()
				p := newPeer(raw, server(config))
				if _, err := io.Copy(p.Conn, p.Conn); err == nil {
					p.closeWrite()
				}
			})
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done; conns.Wait() })
}

func (p *peer) closeWrite() error {
	if c, ok := p.Conn.(*tls.Conn); ok {
		return c.CloseWrite()
	}
	return p.raw.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// shake completes the handshake of a TLS peer.
func (p *peer) shake() error {
	if c, ok := p.Conn.(*tls.Conn); ok {
		return c.Handshake()
	}
	return nil
}

// reset ends the connection with a TCP reset.
func (p *peer) reset() {
	p.raw.Conn.(*net.TCPConn).SetLinger(0)
	p.raw.Conn.Close()
}

// How a stream ended for its reader.
const (
	clean     = "clean"
	truncated = "truncated"
	reset     = "reset"
	failed    = "failed"
)

// readAll reads to the end of the stream and says how it ended.
func (p *peer) readAll() ([]byte, string) {
	b, err := io.ReadAll(p.Conn)
	return b, p.how(err)
}

// how classifies the error of a read or write; nil and io.EOF mean the end of the
// stream.
func (p *peer) how(err error) string {
	_, isTLS := p.Conn.(*tls.Conn)
	switch {
	case err == nil || err == io.EOF:
		if isTLS && p.raw.eof.Load() {
			return truncated
		}
		return clean
	case errors.Is(err, io.ErrUnexpectedEOF):
		return truncated
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		return reset
	}
	return failed
}

func (p *peer) send(t testing.TB, text string) {
	t.Helper()
	if _, err := p.Write([]byte(text)); err != nil {
		t.Fatalf("sending %q: %v", text, err)
	}
}

// want reads exactly text.
func (p *peer) want(t testing.TB, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if n, err := io.ReadFull(p.Conn, b); err != nil || string(b) != text {
		t.Fatalf("got %q, %v; want %q", b[:n], err, text)
	}
}

// wantEnd reads to the end and expects text and an end of one of the kinds.
func (p *peer) wantEnd(t testing.TB, text string, kinds ...string) {
	t.Helper()
	b, how := p.readAll()
	for _, k := range kinds {
		if string(b) == text && how == k {
			return
		}
	}
	t.Fatalf("got %q and a %s end; want %q and %v", b, how, text, kinds)
}

// eventually waits for a condition that nothing signals.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// A transcript is a log that can be read while it is written.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *transcript) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: l, JSONFormat: true})
}

// A pki issues the certificates of a test.
type pki struct{ ca *certstest.CA }

func newPKI(t testing.TB) pki { return pki{certstest.NewCA(t)} }

// listener returns the gate's TLS configuration for names.
func (p pki) listener(t testing.TB, names ...string) *certs.Server {
	t.Helper()
	s, err := certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, p.ca.Server(t, names...))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// client returns the settings of a client of the gate.
func (p pki) client(name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: p.ca.Pool()}
}

// server returns the settings of an upstream.
func (p pki) server(t testing.TB, names ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, p.ca.Server(t, names...))}}
}

// upstream returns the gate's TLS options for an upstream.
func (p pki) upstream(t testing.TB, name string) certs.ClientOptions {
	return certs.ClientOptions{ServerName: name, Trust: []*certs.TrustBundle{p.ca.Trust(t)}}
}
