package splicetest

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A Peer is the test's end of a connection. It records what crypto/tls hides: whether a
// stream ended with close_notify or was cut off.
type Peer struct {
	net.Conn
	Raw *Raw
}

// A Raw is the connection beneath a Peer.
type Raw struct {
	net.Conn
	eof     atomic.Bool
	records atomic.Pointer[recordLayer] // nil: writes pass through unchanged
}

func (c *Raw) Write(p []byte) (int, error) {
	if r := c.records.Load(); r != nil {
		return r.Write(p)
	}
	return c.Conn.Write(p)
}

func (c *Raw) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		c.eof.Store(true)
	}
	return n, err
}

// NewPeer wraps raw, with TLS on it if wrap is not nil.
func NewPeer(raw net.Conn, wrap func(net.Conn) *tls.Conn) *Peer {
	p := &Peer{Raw: &Raw{Conn: raw}}
	p.Conn = p.Raw
	if wrap != nil {
		p.Conn = wrap(p.Raw)
	}
	return p
}

// Client returns a wrapper for NewPeer, or nil if o is nil.
func Client(o *tls.Config) func(net.Conn) *tls.Conn {
	if o == nil {
		return nil
	}
	return func(c net.Conn) *tls.Conn { return tls.Client(c, o) }
}

// Server returns a wrapper for NewPeer, or nil if o is nil.
func Server(o *tls.Config) func(net.Conn) *tls.Conn {
	if o == nil {
		return nil
	}
	return func(c net.Conn) *tls.Conn { return tls.Server(c, o) }
}

// CloseWrite ends the stream toward the gateway.
func (p *Peer) CloseWrite() error {
	if c, ok := p.Conn.(*tls.Conn); ok {
		return c.CloseWrite()
	}
	return p.Raw.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// Handshake completes the handshake of a TLS peer.
func (p *Peer) Handshake() error {
	if c, ok := p.Conn.(*tls.Conn); ok {
		return c.Handshake()
	}
	return nil
}

// Reset ends the connection with a TCP reset.
func (p *Peer) Reset() {
	p.Raw.Conn.(*net.TCPConn).SetLinger(0)
	p.Raw.Conn.Close()
}

// How a stream ended for its reader.
const (
	Clean     = "clean"
	Truncated = "truncated"
	Reset     = "reset"
	Failed    = "failed"
)

// ReadAll reads to the end of the stream and returns how it ended.
func (p *Peer) ReadAll() ([]byte, string) {
	b, err := io.ReadAll(p.Conn)
	return b, p.How(err)
}

// How classifies the error of a read or write; nil and io.EOF mean the end of the
// stream.
func (p *Peer) How(err error) string {
	_, isTLS := p.Conn.(*tls.Conn)
	switch {
	case err == nil || err == io.EOF:
		if isTLS && p.Raw.eof.Load() {
			return Truncated
		}
		return Clean
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Truncated
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		return Reset
	}
	return Failed
}

// Send writes text.
func (p *Peer) Send(t testing.TB, text string) {
	t.Helper()
	if _, err := p.Write([]byte(text)); err != nil {
		t.Fatalf("sending %q: %v", text, err)
	}
}

// Want reads exactly text.
func (p *Peer) Want(t testing.TB, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if n, err := io.ReadFull(p.Conn, b); err != nil || string(b) != text {
		t.Fatalf("got %q, %v; want %q", b[:n], err, text)
	}
}

// WantEcho sends text and reads it back.
func (p *Peer) WantEcho(t testing.TB, text string) {
	t.Helper()
	p.Send(t, text)
	p.Want(t, text)
}

// WantEnd reads to the end and expects text and an end of one of the kinds.
func (p *Peer) WantEnd(t testing.TB, text string, kinds ...string) {
	t.Helper()
	b, how := p.ReadAll()
	for _, k := range kinds {
		if string(b) == text && how == k {
			return
		}
	}
	t.Fatalf("got %q and a %s end; want %q and %v", b, how, text, kinds)
}

// Eventually polls a condition until it holds.
func Eventually(t testing.TB, condition string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not true in time: %s", condition)
		}
	}
}
