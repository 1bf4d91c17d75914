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

	fromHost bool // the server name comes with each connection
	tracker  *Tracker
	observer func(Event) // nil: nobody is told

	due int // a balancer's; guarded by its lock

	health           health
	late             atomic.Bool // the last failure came after a handshake; none has been answered since
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

// DialAs connects to the endpoint and, unless it is plaintext, completes the
// TLS handshake, each within its own timeout and ctx. What comes of it is
// counted, and a failure is logged, unless ctx was cancelled: then nothing was
// learnt about the endpoint. The connection is as Upstream.Dial says; the error
// is a *DialError.
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
		return nil, e.failed(ctx, "tls", 0, errNoHost)
	}
	start := time.Now()
	raw, err := e.connect(ctx)
	elapsed := time.Since(start)
	e.connects.add(elapsed)
	if err != nil {
		return nil, e.failed(ctx, e.Network(), elapsed, err)
	}
	sock := e.own(raw, client, retire)
	if client == nil {
		e.succeeded()
		return sock, nil
	}

	start = time.Now()
	conn, err := e.handshake(ctx, client, sock, host)
	elapsed = time.Since(start)
	e.shakes.add(elapsed)
	if err != nil {
		// Not a reset: that could overtake the alert that tells the peer why.
		sock.Close()
		var he *certs.HandshakeError
		if errors.As(err, &he) && len(he.Refused) > 0 {
			e.presented.Store(&he.Refused)
		}
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

// own returns raw as a Socket that is counted until it is closed.
func (e *Endpoint) own(raw net.Conn, client *certs.Client, retire func()) *socket.Socket {
	c := &tracked{retire: retire}
	if client != nil {
		if identity := client.Certificate(); identity != nil {
			c.fingerprint = identity.Fingerprint()
		}
	}
	e.open.Add(1)
	c.sock = socket.New(raw, func() {
		e.tracker.remove(c)
		e.open.Add(-1)
	})
	e.tracker.add(c)
	return c.sock
}

func (e *Endpoint) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.connectTimeout)
	defer cancel()
	var d net.Dialer // keep-alive and TCP_NODELAY are on by default
	return d.DialContext(ctx, e.options.Network, e.options.Address)
}

func (e *Endpoint) handshake(ctx context.Context, c *certs.Client, sock *socket.Socket, host string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.handshakeTimeout)
	defer cancel()
	return c.HandshakeAs(ctx, sock, host)
}

func (e *Endpoint) succeeded() {
	e.made.Add(1)
	if !e.late.Load() {
		e.up()
	}
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

// NoteFailure counts and logs a failure that showed only after DialAs had
// returned a connection. A TLS 1.3 server judges the client's certificate
// after the client has finished its handshake, so its refusal is what the
// first read from the connection fails with. From then on a handshake alone
// does not show that the endpoint is up: NoteReply does.
func (e *Endpoint) NoteFailure(err error) {
	e.late.Store(true)
	e.note(&DialError{
		Upstream: e.upstream,
		Endpoint: e.Address(),
		Phase:    "tls",
		Reason:   certs.Classify(err),
		Err:      err,
	})
}

// NoteReply says that the endpoint has sent something over a connection, and
// so has accepted it.
func (e *Endpoint) NoteReply() {
	if e.late.Load() {
		e.late.Store(false)
		e.up()
	}
}

func (e *Endpoint) up() {
	e.health.set(Up, func() { e.tell(Event{Kind: HealthChanged, Health: Up}) })
}

func (e *Endpoint) note(f *DialError) {
	message := printable(f.Err.Error())
	failure, suppressed, due := e.failures.add(f.Reason, message)
	if !e.blamesHost(f.Reason) {
		e.health.set(Down, func() { e.tell(Event{Kind: HealthChanged, Health: Down, Failure: failure}) })
	}
	if due {
		e.log.Warn("endpoint failed", "endpoint", f.Endpoint, "phase", f.Phase, "reason", string(f.Reason),
			"error", message, "elapsed", f.Elapsed, "suppressed", suppressed)
		e.tell(Event{Kind: Failed, Health: e.health.load(), Failure: failure, Count: suppressed + 1})
	}
}

// blamesHost reports whether a failure says more about the host that a client
// asked for than about the endpoint. Clients must not be able to talk an
// endpoint down.
func (e *Endpoint) blamesHost(r certs.Reason) bool {
	switch r {
	case certs.ReasonNameMismatch, certs.ReasonUnrecognizedName, certs.ReasonLocalConfig:
		return e.fromHost
	}
	return false
}

func (e *Endpoint) tell(event Event) {
	if e.observer != nil {
		event.Upstream, event.Endpoint = e.upstream, e.Address()
		e.observer(event)
	}
}

// NoteRequest counts an HTTP request sent to the endpoint.
func (e *Endpoint) NoteRequest() { e.requests.Add(1) }
