package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// dial makes one attempt to connect. A nil client means plaintext.
func (e *Endpoint) dial(ctx context.Context, client *certs.Client, host string, retire func()) (net.Conn, *DialError) {
	trace := traceOf(ctx)
	trace.Endpoint = e
	trace.Dials++
	start := time.Now()
	raw, err := e.connect(ctx)
	elapsed := time.Since(start)
	e.connects.add(elapsed)
	e.upstream.options.Latencies.Connect.Observe(elapsed)
	trace.Connect += elapsed
	if err != nil {
		return nil, e.failure(e.Network(), elapsed, err)
	}
	sock := e.own(raw, client, retire)
	if err := e.announce(ctx, sock); err != nil {
		sock.Close()
		return nil, e.failure(e.Network(), elapsed, err)
	}
	if client == nil {
		return sock, nil
	}

	start = time.Now()
	conn, err := e.handshake(ctx, client, sock, host)
	elapsed = time.Since(start)
	e.shakes.add(elapsed)
	e.upstream.options.Latencies.Handshake.Observe(elapsed)
	trace.Handshake += elapsed
	if err != nil {
		// Not a reset: that could overtake the alert that tells the peer why.
		sock.Close()
		if he, ok := errors.AsType[*certs.HandshakeError](err); ok && len(he.Refused) > 0 {
			e.presented.Store(&he.Refused)
		}
		return nil, e.failure("tls", elapsed, err)
	}
	// With TLS 1.3 the upstream judges our certificate only now.
	sock.HearFirst()
	state := conn.ConnectionState()
	if state.DidResume {
		e.resumed.Add(1)
	} else {
		e.full.Add(1)
	}
	chain := state.PeerCertificates // a pointer into state would keep all of it
	e.presented.Store(&chain)
	return conn, nil
}

// isNarrow reports whether another attempt will offer more than the one that
// failed did.
func isNarrow(err error) bool {
	he, ok := errors.AsType[*certs.HandshakeError](err)
	return ok && he.Narrow
}

// own returns what connect returned as a Socket that is counted until it is
// closed.
func (e *Endpoint) own(raw net.Conn, client *certs.Client, retire func()) *socket.Socket {
	c := &tracked{retire: retire}
	if client != nil {
		if identity := client.Certificate(); identity != nil {
			c.fingerprint = identity.Fingerprint()
		}
	}
	e.open.Add(1)
	c.sock = socket.New(raw, func() {
		e.upstream.options.Tracker.remove(c)
		e.open.Add(-1)
		e.upstream.options.Descriptors.ReleaseUpstream()
	})
	e.upstream.options.Tracker.add(c)
	return c.sock
}

func (e *Endpoint) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.upstream.options.ConnectTimeout)
	defer cancel()
	if err := e.upstream.options.Descriptors.TakeUpstream(ctx); err != nil {
		return nil, err
	}
	conn, err := socket.Patiently(ctx, func() (net.Conn, error) { return e.reach(ctx) })
	if err != nil {
		e.upstream.options.Descriptors.ReleaseUpstream()
	}
	return conn, err
}

// reach connects, and takes no descriptor for it.
func (e *Endpoint) reach(ctx context.Context) (net.Conn, error) {
	return resolve.Dial(ctx, e.options.Network, e.options.Address)
}

func (e *Endpoint) handshake(ctx context.Context, c *certs.Client, sock *socket.Socket, host string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.upstream.options.HandshakeTimeout)
	defer cancel()
	return c.HandshakeAs(ctx, sock, host)
}
