package upstream

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

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
	upstream *Upstream
	options  EndpointOptions
	fromHost bool // the server name comes with each connection

	// The share of the traffic, as the next group has it. See setShare.
	weight atomic.Int64 // at least 1
	backup atomic.Bool

	seed  uint64       // of what it bids for slots
	since atomic.Int64 // when it came up, in time of upstream plus 1; 0: it has its whole share
	gone  atomic.Int64 // when it left its upstream's group, in nanoseconds since 1970; 0: it did not

	underWay    quota       // requests
	connections connections // counted only if a limit asks for it
	shared      atomic.Int64

	warm *warmPool // nil: none is kept

	checker *checker // nil: it is not asked whether it is well
	outlier *outlier // nil: it is never ejected
	health  *health  // the checker's, if there is one

	late             atomic.Bool // the last failure came after a handshake; none has been answered since
	streamBroke      atomic.Bool // the last stream broke; none has ended well since
	open             atomic.Int64
	made, requests   atomic.Uint64
	full, resumed    atomic.Uint64
	connects, shakes timing
	presented        atomic.Pointer[[]*x509.Certificate] // leaf first
	failures         failures
}

// newEndpoint returns an endpoint of u. It is not in u's group yet.
func (u *Upstream) newEndpoint(o EndpointOptions) *Endpoint {
	e := &Endpoint{upstream: u, options: o, health: new(health), seed: xxhash.Sum64String(o.Network + " " + o.Address)}
	e.setShare(o.Weight, o.Backup)
	e.underWay.most, e.connections.most = int64(u.options.Limits.RequestsPerEndpoint), u.perEndpoint
	for _, c := range e.clients() {
		e.fromHost = e.fromHost || c.Options().FromHost
	}
	e.watch()
	e.inherit(u.before[address{o.Network, o.Address}])
	if u.options.Warm > 0 && o.Stream != nil && !o.Draining && !e.fromHost && !u.announces {
		e.keepWarm()
	}
	return e
}

// takes reports whether the endpoint takes traffic now. It is asked for every
// choice, also under the queue's lock, and so takes none itself. Whoever changes
// the answer calls upstream.changed, or cameUp.
func (e *Endpoint) takes() bool { return !e.Draining() && e.isWell() }

// Network returns "tcp" or "unix".
func (e *Endpoint) Network() string { return e.options.Network }

// Address returns the endpoint's host:port or path.
func (e *Endpoint) Address() string { return e.options.Address }

// Authority returns what the endpoint is called in a request's Host: host:port, or
// a path.
func (e *Endpoint) Authority() string { return cmp.Or(e.options.Authority, e.options.Address) }

// Backup reports whether the endpoint is tried only after every one that is not a
// backup, and Draining whether it takes no new connections.
func (e *Endpoint) Backup() bool   { return e.backup.Load() }
func (e *Endpoint) Draining() bool { return e.options.Draining || e.Left() }

// Client returns the TLS settings for a purpose; nil: plaintext.
func (e *Endpoint) Client(p Purpose) *certs.Client { return e.client(p) }

// DialAs connects to the endpoint and, unless it is plaintext, completes the
// TLS handshake, each within its own timeout and ctx. What comes of it is
// counted, and a failure is logged, unless ctx was cancelled: then nothing was
// learnt about the endpoint. The connection is as Upstream.Dial says; the error
// is a *DialError, or ErrFull.
//
// Host is what the client asked for, a DNS name or an IP address, "" if it did
// not say. It matters if the upstream takes the server name from it: then
// without one the connection is refused, with LOCAL_CONFIG, before it is made.
func (e *Endpoint) DialAs(ctx context.Context, p Purpose, host string) (net.Conn, error) {
	return e.DialPooled(ctx, p, host, nil)
}

// DialPooled is DialAs for a connection that is kept to be used again. Retire is
// called if it is drained: it is to get nothing more to do, and to be closed by
// its owner when what it does is done. That may be before DialPooled returns,
// from any goroutine, and more than once.
func (e *Endpoint) DialPooled(ctx context.Context, p Purpose, host string, retire func()) (net.Conn, error) {
	client := e.client(p)
	if e.fromHost && client != nil && host == "" {
		return nil, e.failed(ctx, e.failure("tls", 0, errNoHost))
	}
	if err := e.takePlace(); err != nil {
		return nil, err
	}
	if t, ok := ctx.Value(turnKey{}).(*Turn); ok {
		t.Connected() // it is counted by its place from here on
	}
	return e.dialCounted(ctx, p, host, retire)
}

// dialCounted is DialPooled for a connection that takePlace has counted.
func (e *Endpoint) dialCounted(ctx context.Context, p Purpose, host string, retire func()) (net.Conn, error) {
	client := e.client(p)
	conn, failure := e.dial(ctx, client, host, retire)
	if failure != nil && isNarrow(failure.Err) {
		conn, failure = e.dial(ctx, client, host, retire)
	}
	if failure != nil {
		e.givePlace()
		return nil, e.failed(ctx, failure)
	}
	if e.upstream.LimitsConnections() {
		socket.Of(conn).OnClose(e.givePlace)
	}
	e.succeeded(p)
	return conn, nil
}

// errNoHost refuses a connection for a client that asked for no host.
var errNoHost = &certs.VerifyError{
	Reason: certs.ReasonLocalConfig,
	Detail: "the server name is that of the request's host or the client's SNI, and the client sent none",
}

// client returns the TLS settings for a purpose; nil means plaintext.
func (e *Endpoint) client(p Purpose) *certs.Client {
	if p == HTTP {
		return e.options.HTTP
	}
	return e.options.Stream
}

// clients returns the TLS settings there are, each once.
func (e *Endpoint) clients() []*certs.Client {
	stream, http := e.options.Stream, e.options.HTTP
	switch {
	case stream == nil && http == nil:
		return nil
	case stream == nil:
		return []*certs.Client{http}
	case http == nil || http == stream:
		return []*certs.Client{stream}
	}
	return []*certs.Client{stream, http}
}

func (e *Endpoint) succeeded(p Purpose) {
	e.made.Add(1)
	if e.late.Load() {
		return
	}
	e.up()
	e.outlier.shook()
	if p == Stream {
		e.NoteStream()
	}
}

func (e *Endpoint) failure(phase string, elapsed time.Duration, err error) *DialError {
	return &DialError{
		Upstream: e.upstream.Name(),
		Endpoint: e.Address(),
		Phase:    phase,
		Reason:   certs.Classify(err),
		Elapsed:  elapsed,
		Err:      err,
	}
}

func (e *Endpoint) failed(ctx context.Context, failure *DialError) error {
	if !errors.Is(ctx.Err(), context.Canceled) {
		e.note(failure, failure.Phase == "tls")
	}
	return failure
}
