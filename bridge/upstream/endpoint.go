package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A DialError says which endpoint could not be reached, in which phase and
// after how long.
type DialError struct {
	Upstream, Endpoint string
	Phase              string // "tcp", "unix" or "tls"
	Reason             certs.Reason
	Elapsed            time.Duration // of that phase
	Err                error
}

func (e *DialError) Error() string {
	return fmt.Sprintf("upstream %s: %s %s: %v", e.Upstream, e.Phase, e.Endpoint, e.Err)
}

func (e *DialError) Unwrap() error { return e.Err }

// An Endpoint is one address of an Upstream. All methods may be called
// concurrently.
type Endpoint struct {
	upstream                         string
	options                          EndpointOptions
	connectTimeout, handshakeTimeout time.Duration
	log                              hclog.Logger

	due int // a balancer's; guarded by its lock

	health           atomic.Int32
	open             atomic.Int64
	made, requests   atomic.Uint64
	full, resumed    atomic.Uint64
	connects, shakes timing
	presented        atomic.Pointer[[]*x509.Certificate] // leaf first
	failures         failures
}

// Network returns "tcp" or "unix".
func (e *Endpoint) Network() string { return e.options.Network }

// Address returns the endpoint's host:port or path.
func (e *Endpoint) Address() string { return e.options.Address }

// Dial connects to the endpoint and, unless it is plaintext, completes the TLS
// handshake, each within its own timeout and ctx. What comes of it is counted,
// and a failure is logged, unless ctx was cancelled: then nothing was learnt
// about the endpoint. The connection is as Upstream.Dial says; the error is a
// *DialError.
func (e *Endpoint) Dial(ctx context.Context, p Purpose) (net.Conn, error) {
	start := time.Now()
	raw, err := e.connect(ctx)
	elapsed := time.Since(start)
	e.connects.add(elapsed)
	if err != nil {
		return nil, e.failed(ctx, e.Network(), elapsed, err)
	}
	e.open.Add(1)
	sock := socket.New(raw, func() { e.open.Add(-1) })

	client := e.options.Stream
	if p == HTTP {
		client = e.options.HTTP
	}
	if client == nil {
		e.succeeded()
		return sock, nil
	}

	start = time.Now()
	conn, err := e.handshake(ctx, client, sock)
	elapsed = time.Since(start)
	e.shakes.add(elapsed)
	if err != nil {
		// Not a reset: that could overtake the alert that tells the peer why.
		sock.Close()
		return nil, e.failed(ctx, "tls", elapsed, err)
	}
	// With TLS 1.3 the upstream judges our certificate only now.
	sock.HearFirst()
	state := conn.ConnectionState()
	if state.DidResume {
		e.resumed.Add(1)
	} else {
		e.full.Add(1)
	}
	e.presented.Store(&state.PeerCertificates)
	e.succeeded()
	return conn, nil
}

func (e *Endpoint) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.connectTimeout)
	defer cancel()
	var d net.Dialer // keep-alive and TCP_NODELAY are on by default
	return d.DialContext(ctx, e.options.Network, e.options.Address)
}

func (e *Endpoint) handshake(ctx context.Context, c *certs.Client, sock *socket.Socket) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.handshakeTimeout)
	defer cancel()
	return c.Handshake(ctx, sock)
}

func (e *Endpoint) succeeded() {
	e.made.Add(1)
	e.health.Store(int32(Up))
}

func (e *Endpoint) failed(ctx context.Context, phase string, elapsed time.Duration, err error) error {
	failure := &DialError{
		Upstream: e.upstream,
		Endpoint: e.Address(),
		Phase:    phase,
		Reason:   certs.Classify(err),
		Elapsed:  elapsed,
		Err:      err,
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		e.note(failure)
	}
	return failure
}

// NoteFailure counts and logs a failure that showed only after Dial had
// returned a connection. A TLS 1.3 server judges the client's certificate
// after the client has finished its handshake, so its refusal is what the
// first read from the connection fails with.
func (e *Endpoint) NoteFailure(err error) {
	e.note(&DialError{
		Upstream: e.upstream,
		Endpoint: e.Address(),
		Phase:    "tls",
		Reason:   certs.Classify(err),
		Err:      err,
	})
}

func (e *Endpoint) note(f *DialError) {
	e.health.Store(int32(Down))
	message := printable(f.Err.Error())
	suppressed, log := e.failures.add(f.Reason, message)
	if log {
		e.log.Warn("endpoint failed", "endpoint", f.Endpoint, "phase", f.Phase, "reason", string(f.Reason),
			"error", message, "elapsed", f.Elapsed, "suppressed", suppressed)
	}
}

// NoteRequest counts an HTTP request sent to the endpoint.
func (e *Endpoint) NoteRequest() { e.requests.Add(1) }
