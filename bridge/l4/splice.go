package l4

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// An ending says how a connection ended, for the log.
type ending string

const (
	endClosed   ending = "closed" // both sides ended their stream
	endIdle     ending = "idle"
	endLinger   ending = "linger"
	endShutdown ending = "shutdown"
	endDrained  ending = "drained" // the upstream's side was closed by its Tracker

	endClientReset       ending = "client reset"
	endClientTruncated   ending = "client truncated" // TLS without close_notify
	endClientFailed      ending = "client failed"
	endUpstreamReset     ending = "upstream reset"
	endUpstreamTruncated ending = "upstream truncated"
	endUpstreamFailed    ending = "upstream failed"
)

// errTruncated reports a TLS stream that ended without close_notify: bytes may
// be missing, and anyone on the path may have taken them away (RFC 8446, 6.1).
var errTruncated = errors.New("TLS stream cut off without close_notify")

// A side is one of the two connections of a splice.
type side struct {
	sock *socket.Socket
	tls  *tls.Conn // nil: plaintext

	ending atomic.Bool // its stream is being ended, or has been
	ended  atomic.Bool // its stream has been ended: all it was sent is complete

	reset, truncated, failed ending // what it is called when it ends badly
}

// close closes the side: with a reset if the stream towards it is incomplete.
func (s *side) close() {
	if s.ended.Load() {
		s.sock.Close()
	} else {
		s.sock.Reset()
	}
}

// closeWrite ends the stream towards the side: with close_notify or a FIN.
func (s *side) closeWrite() error {
	s.ending.Store(true)
	var err error
	if s.tls != nil {
		err = s.tls.CloseWrite()
	} else {
		err = s.sock.CloseWrite()
	}
	s.ended.Store(err == nil)
	return err
}

// write sends p to the side.
func (s *side) write(p []byte) (int, error) {
	if s.tls != nil {
		return s.tls.Write(p)
	}
	return s.sock.Write(p)
}

// called names err, which reading from the side or writing to it failed with.
func (s *side) called(err error) ending {
	switch {
	case errors.Is(err, net.ErrClosed):
		return endDrained // whoever else closes it notes why first
	case errors.Is(err, errTruncated):
		return s.truncated
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		return s.reset
	}
	return s.failed
}

// A splice carries bytes between two connections and owns both: when run
// returns they are closed.
type splice struct {
	client, upstream     side
	toUpstream, toClient direction
	pool                 *socket.Pool
	idle, linger         time.Duration

	closing sync.Once

	mu    sync.Mutex
	how   ending // the first that was noted
	cause error
	timer *time.Timer // of watch
	half  bool        // one direction is over
	done  bool        // both are
}

// A direction carries one of a splice's two streams.
type direction struct {
	from, to *side
	bytes    atomic.Uint64  // delivered
	total    *atomic.Uint64 // the server's, likewise

	first   func() // called as the first bytes are delivered; may be nil
	failure error  // of reading; may be looked at when run has returned

	// activity grows with everything that happens, and is odd while a write is
	// under way. So one timer can watch it, and no read or write sets one.
	activity atomic.Uint64

	// Of watch: the activity last seen, and when it was first seen.
	seen  uint64
	since time.Time
}

// newSplice takes over both connections, whose handshakes are complete. The
// counters are added to as bytes are delivered.
func newSplice(client, upstream net.Conn, pool *socket.Pool, idle, linger time.Duration, toUpstream, toClient *atomic.Uint64) *splice {
	s := &splice{pool: pool, idle: idle, linger: min(linger, idle)}
	s.client.reset, s.client.truncated, s.client.failed = endClientReset, endClientTruncated, endClientFailed
	s.upstream.reset, s.upstream.truncated, s.upstream.failed = endUpstreamReset, endUpstreamTruncated, endUpstreamFailed
	for _, x := range []struct {
		side *side
		conn net.Conn
	}{{&s.client, client}, {&s.upstream, upstream}} {
		x.side.sock = socket.Of(x.conn)
		x.side.tls, _ = x.conn.(*tls.Conn)
		x.side.sock.Stream(pool)
		x.side.sock.Relay()
	}
	s.toUpstream.from, s.toUpstream.to, s.toUpstream.total = &s.client, &s.upstream, toUpstream
	s.toClient.from, s.toClient.to, s.toClient.total = &s.upstream, &s.client, toClient
	return s
}

// run carries bytes both ways until both streams have ended, or one breaks,
// or cut is called. It returns how it ended and, for a bad end, why.
func (s *splice) run() (ending, error) {
	s.startWatch()
	other := make(chan struct{})
	go func() {
		defer close(other)
		s.carry(&s.toClient)
	}()
	s.carry(&s.toUpstream)
	<-other
	s.stopWatch()
	s.cut(endClosed, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.how, s.cause
}

// cut ends the splice: it closes both sides, which makes both directions
// return.
func (s *splice) cut(how ending, cause error) {
	s.note(how, cause)
	s.closing.Do(func() {
		s.client.close()
		s.upstream.close()
	})
}

// note says how the splice ended, unless that was said before: what follows
// the first bad end is its consequence.
func (s *splice) note(how ending, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.how == "" {
		s.how, s.cause = how, cause
	}
}

// carry runs one direction to its end and passes the end on.
func (s *splice) carry(d *direction) {
	readErr, writeErr := d.copy(s.pool)
	d.failure = readErr
	d.from.sock.Release()
	switch {
	case readErr != nil:
		// What was read is not all that was sent, and nobody may take it for
		// all. With one stream broken the other has no reader either.
		s.cut(d.from.called(readErr), readErr)
	case writeErr != nil:
		// The side takes no more, but what it said before it went, such as
		// why, may still be waiting to be read; so the other direction goes
		// on to its own end.
		s.note(d.to.called(writeErr), writeErr)
		s.startLinger()
	default:
		s.startLinger()
	}
}

// copy carries a direction's bytes until its stream ends or cannot go on.
// While it waits for bytes it holds no buffer. With two nil errors the stream
// ended cleanly and the end was passed on.
func (d *direction) copy(pool *socket.Pool) (readErr, writeErr error) {
	for {
		if d.from.tls != nil {
			readErr, writeErr = d.forwardTLS(pool)
		} else if writeErr = d.deliver(d.from.sock.Taken()); writeErr == nil {
			d.from.sock.Release()
		}
		if readErr == nil && writeErr == nil {
			readErr = d.fill()
		}
		switch {
		case readErr == io.EOF:
			return nil, d.to.closeWrite()
		case readErr != nil || writeErr != nil:
			return readErr, writeErr
		}
	}
}

// fill waits for bytes. It returns io.EOF only for an end that is clean.
func (d *direction) fill() error {
	err := d.from.sock.Fill()
	if err == nil {
		d.activity.Add(2)
		return nil
	}
	if err == io.EOF && d.from.tls != nil {
		return errTruncated // after a close_notify nothing is waited for
	}
	// Whether the other direction is ending its stream is asked last: what
	// WasReset saw may be that end, acknowledged in the meantime.
	if err == io.EOF && d.from.sock.WasReset() && !d.from.ending.Load() {
		return syscall.ECONNRESET // which a write to this side was told of
	}
	return err
}

// forwardTLS delivers whatever can be decrypted without waiting.
func (d *direction) forwardTLS(pool *socket.Pool) (readErr, writeErr error) {
	buf := pool.Get()
	defer pool.Put(buf)
	for {
		n := 0
		for n < len(*buf) && readErr == nil {
			var m int
			m, readErr = d.from.tls.Read((*buf)[n:])
			n += m
		}
		if writeErr = d.deliver((*buf)[:n]); writeErr != nil {
			return nil, writeErr
		}
		if errors.Is(readErr, socket.ErrWouldBlock) {
			return nil, nil
		}
		if readErr != nil {
			return readErr, nil
		}
	}
}

// deliver writes p, and counts what was written.
func (d *direction) deliver(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	d.activity.Add(1)
	n, err := d.to.write(p)
	d.activity.Add(1)
	if d.bytes.Add(uint64(n)) == uint64(n) && d.first != nil {
		d.first()
	}
	d.total.Add(uint64(n))
	return err
}
