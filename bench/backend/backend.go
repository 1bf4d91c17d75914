// Package backend is the server behind the measured proxies: TLS with a client
// certificate, and above it HTTP, or a small protocol (package wire) that
// echoes, fills or drains a connection.
//
// A Backend owns its connections. It checks everything that it receives. It
// runs in the process of the load generator, so that only the proxies are
// measured, except PostgreSQL, which has its own process.
package backend

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bench/wire"
)

// A Backend serves until it is closed.
type Backend struct {
	// Handshakes and Resumed count the TLS connections.
	Handshakes, Resumed atomic.Int64
	// Received counts the bytes that sinks received.
	Received atomic.Int64
	// Mismatched counts connections that delivered unexpected data.
	Mismatched atomic.Int64

	program     string       // the address of the program that serves; "": the listener serves
	listener    net.Listener // nil if a program serves
	config      *tls.Config
	closeServer func() error // closes the server of HTTP or gRPC

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

// Start serves on a port of loopback that the kernel chooses.
func Start(config *tls.Config) (*Backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &Backend{listener: l, config: config, conns: map[net.Conn]struct{}{}}
	b.wg.Go(b.accept)
	return b, nil
}

// Address returns its address.
func (b *Backend) Address() string {
	if b.listener == nil {
		return b.program
	}
	return b.listener.Addr().String()
}

// Close ends every connection, and returns when all have ended.
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	for c := range b.conns {
		_ = c.Close()
	}
	b.mu.Unlock()
	var err error
	if b.closeServer != nil {
		err = b.closeServer() // closes the listener too, and would fail if it were closed
	} else {
		err = b.listener.Close()
	}
	b.wg.Wait()
	return err
}

func (b *Backend) accept() {
	for {
		c, err := b.listener.Accept()
		if err != nil {
			return
		}
		if !b.track(c) {
			_ = c.Close()
			return
		}
		b.wg.Go(func() {
			defer b.untrack(c)
			b.serve(c)
		})
	}
}

func (b *Backend) track(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.conns[c] = struct{}{}
	return true
}

func (b *Backend) untrack(c net.Conn) {
	b.mu.Lock()
	delete(b.conns, c)
	b.mu.Unlock()
}

// serve owns raw.
func (b *Backend) serve(raw net.Conn) {
	c := tls.Server(raw, b.config)
	defer c.Close()
	if c.Handshake() != nil {
		return // the client gets an error and counts it
	}
	b.Handshakes.Add(1)
	if c.ConnectionState().DidResume {
		b.Resumed.Add(1)
	}
	op, seed, err := wire.ReadHeader(c)
	if err != nil {
		// A connection that ends without a byte carries no client: the proxy made it
		// in advance, or bench made it to check that the proxy listens.
		if errors.Is(err, wire.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			b.Mismatched.Add(1)
		}
		return
	}
	switch op {
	case wire.Echo:
		echo(c)
	case wire.Source:
		source(c, seed)
	case wire.Sink:
		b.sink(c, seed)
	default:
		b.Mismatched.Add(1)
	}
}

func echo(c net.Conn) {
	buf := make([]byte, 4<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func source(c net.Conn, seed uint64) {
	const chunk = 64 << 10
	for offset := uint64(0); ; offset += chunk {
		if _, err := c.Write(wire.At(seed, offset, chunk)); err != nil {
			return
		}
	}
}

func (b *Backend) sink(c net.Conn, seed uint64) {
	buf := make([]byte, 64<<10)
	var offset uint64
	for {
		n, err := c.Read(buf)
		if !wire.Matches(seed, offset, buf[:n]) {
			b.Mismatched.Add(1)
			return
		}
		offset += uint64(n)
		b.Received.Add(int64(n))
		if err != nil {
			return
		}
	}
}
