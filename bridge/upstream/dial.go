package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A DialError reports which endpoint could not be reached, in which phase and
// after how long.
type DialError struct {
	Upstream, Endpoint string
	Phase              string // "tcp", "unix" or "tls"
	Reason             certs.Reason
	Elapsed            time.Duration // duration of the phase
	Err                error
}

func (e *DialError) Error() string {
	return fmt.Sprintf("upstream %s: %s %s: %v", e.Upstream, e.Phase, e.Endpoint, e.Err)
}

func (e *DialError) Unwrap() error { return e.Err }

// A dialer makes connections to one endpoint, for traffic and health checks,
// and counts them.
type dialer struct {
	upstream *Upstream
	options  EndpointOptions
	fromHost bool // the server name depends on the connection
	counts   counters
}

// dial makes one attempt to connect. A nil client means plaintext.
func (d *dialer) dial(ctx context.Context, client *certs.Client, host string, holder Holder) (net.Conn, *DialError) {
	trace := traceOf(ctx)
	trace.Dials++
	start := time.Now()
	raw, err := d.connect(ctx)
	elapsed := time.Since(start)
	d.counts.connects.add(elapsed)
	d.upstream.options.Latencies.Connect.Observe(elapsed)
	trace.Connect += elapsed
	if err != nil {
		return nil, d.failure(d.options.Network, elapsed, err)
	}
	c := d.track(raw, client, holder)
	sock := c.sock
	if err := d.announce(ctx, sock); err != nil {
		sock.Close()
		return nil, d.failure(d.options.Network, elapsed, err)
	}
	if client == nil {
		return c.tracker.ready(c, sock), nil
	}

	start = time.Now()
	conn, peer, err := d.handshake(ctx, client, sock, host)
	elapsed = time.Since(start)
	d.counts.handshakes.add(elapsed)
	d.upstream.options.Latencies.Handshake.Observe(elapsed)
	trace.Handshake += elapsed
	if err != nil {
		// Do not reset the connection: a reset could overtake the alert that explains
		// the failure to the peer.
		sock.Close()
		d.presentRefused(err)
		return nil, d.failure("tls", elapsed, err)
	}
	c.tracker.verified(c, peer)
	state := conn.ConnectionState()
	if state.Version != tls.VersionTLS13 {
		socket.MeterOf(c.sock).Stop()
	}
	if state.DidResume {
		d.counts.resumed.Add(1)
	} else {
		d.counts.full.Add(1)
	}
	d.present(state.PeerCertificates)
	return c.tracker.ready(c, conn), nil
}

// isNarrow reports whether a second attempt will offer more than the failed
// one.
func isNarrow(err error) bool {
	he, ok := errors.AsType[*certs.HandshakeError](err)
	return ok && he.Narrow
}

// track wraps a connection from connect in a Socket that is counted until it is
// closed.
func (d *dialer) track(raw net.Conn, client *certs.Client, holder Holder) *tracked {
	t := d.upstream.options.Tracker
	c := &tracked{tracker: t, upstream: d.upstream, dialer: d, holder: holder, id: t.number(), began: time.Now()}
	if client != nil {
		if identity := client.Certificate(); identity != nil {
			c.fingerprint = identity.Fingerprint()
		}
	}
	d.counts.open.Add(1)
	c.sock = socket.New(raw, func() {
		t.remove(c)
		d.counts.open.Add(-1)
		d.upstream.options.Descriptors.ReleaseUpstream()
	})
	t.add(c)
	return c
}

func (d *dialer) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.upstream.options.ConnectTimeout)
	defer cancel()
	if err := d.upstream.options.Descriptors.TakeUpstream(ctx); err != nil {
		return nil, err
	}
	conn, err := socket.RetryDescriptors(ctx, func() (net.Conn, error) { return d.reach(ctx) })
	if err != nil {
		d.upstream.options.Descriptors.ReleaseUpstream()
	}
	return conn, err
}

// reach connects without taking a descriptor from the pool.
func (d *dialer) reach(ctx context.Context) (net.Conn, error) {
	return d.upstream.options.Connect(ctx, d.options.Network, d.options.Address)
}

// handshake completes the TLS handshake, after the upgrade that Options.Starttls needs.
// If the connection is for a Turn, the Turn gets the greeting.
func (d *dialer) handshake(ctx context.Context, c *certs.Client, sock *socket.Socket, host string) (*tls.Conn, *certs.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, d.upstream.options.HandshakeTimeout)
	defer cancel()
	protocol := d.upstream.options.Starttls
	if err := protocol.Upgrade(ctx, sock); err != nil {
		return nil, nil, err
	}
	socket.MeterRecords(sock)
	conn, peer, err := c.HandshakePeer(ctx, sock, host)
	if err != nil {
		return nil, nil, starttls.ClientOf(ctx).Attribute(protocol.Explain(err))
	}
	// A TLS 1.3 upstream verifies our certificate only now.
	sock.ReadBeforeReset()
	greeting, err := protocol.Greet(ctx, conn)
	if t, ok := ctx.Value(turnKey{}).(*Turn); ok {
		t.greeting = greeting
	}
	return conn, peer, err
}

// announce sends the PROXY protocol header, before TLS or any data.
func (d *dialer) announce(ctx context.Context, conn net.Conn) error {
	c, _ := ctx.Value(announced{}).(client)
	header := d.upstream.options.ProxyProtocol.Header(c.source, c.destination)
	if header == nil {
		return nil
	}
	// The first write to a socket does not wait, but a write to the connection that
	// Connect returns may.
	_ = conn.SetWriteDeadline(time.Now().Add(d.upstream.options.ConnectTimeout)) // fails only on a closed connection, and then Write fails too
	if _, err := conn.Write(header); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

func (d *dialer) failure(phase string, elapsed time.Duration, err error) *DialError {
	return &DialError{
		Upstream: d.upstream.Name(),
		Endpoint: d.options.Address,
		Phase:    phase,
		Reason:   certs.Classify(err),
		Elapsed:  elapsed,
		Err:      err,
	}
}
