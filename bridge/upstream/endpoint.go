package upstream

import (
	"cmp"
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An Endpoint is one address of an Upstream. Its parts each have one job; what
// concerns several of them is a method of the Endpoint. All methods may be called
// concurrently.
type Endpoint struct {
	upstream *Upstream
	dialer
	trafficShare
	capacity
	results

	seed uint64       // of its bids for slots of a consistent hash
	gone atomic.Int64 // when it left its upstream's group, in nanoseconds since 1970; 0: it did not

	warm    *warmPool // nil: no connection is kept warm
	checker *checker  // nil: there is no health check
	outlier *outlier  // nil: it is never ejected
	health  *health   // the checker's, if there is one
}

// newEndpoint returns an endpoint of u. It is not in u's group yet.
func (u *Upstream) newEndpoint(o EndpointOptions) *Endpoint {
	e := &Endpoint{upstream: u, health: new(health), seed: xxhash.Sum64String(o.Network + " " + o.Address)}
	e.dialer.upstream, e.dialer.options = u, o
	e.trafficShare.upstream, e.capacity.upstream, e.results.endpoint = u, u, e
	e.setShare(o.Weight, o.Backup)
	e.underWay.most, e.connections.most = int64(u.options.Limits.RequestsPerEndpoint), u.perEndpoint
	for _, c := range o.clients() {
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
func (e *Endpoint) Client(p Purpose) *certs.Client { return e.options.client(p) }

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
	if e.fromHost && e.Client(p) != nil && host == "" {
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
	client := e.Client(p)
	traceOf(ctx).Endpoint = e
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

// Left reports whether the endpoint is no endpoint of its upstream any more. No
// connection to it is to be kept.
func (e *Endpoint) Left() bool { return e.gone.Load() != 0 }

// start has an endpoint begin what it does of itself, end has it end that for good,
// and wait returns when it has. An endpoint that left takes no new connections but
// from who has chosen it already; those it has go on.
func (e *Endpoint) start() {
	e.outlier.start()
	e.checker.start()
	e.warm.start()
}

func (e *Endpoint) end() {
	e.outlier.stop()
	e.checker.end()
	e.warm.end()
}

func (e *Endpoint) wait() {
	e.checker.wait()
	e.warm.wait()
}

// follow says what took the traffic of e's upstream until now; nil: nothing. There
// e may have come up a while ago.
func (e *Endpoint) follow(replaced *Upstream) {
	period := e.upstream.options.SlowStart
	if replaced == nil || period == 0 || len(replaced.Endpoints()) == 0 {
		return
	}
	begun := e.upstream.made
	for _, before := range replaced.Endpoints() {
		if before.options.Network != e.options.Network || before.options.Address != e.options.Address || !before.takes() {
			continue
		}
		since := before.since.Load()
		if since == 0 {
			return
		}
		begun = replaced.made.Add(time.Duration(since - 1))
	}
	// Where it came up before its upstream was made, this is less than 0.
	e.since.Store(int64(begun.Sub(e.upstream.made)) + 1)
}

func (e *Endpoint) tell(event Event) {
	event.Endpoint = e.Address()
	e.upstream.tell(event)
}

// NoteRequest counts an HTTP request sent to the endpoint.
func (e *Endpoint) NoteRequest() { e.counts.requests.Add(1) }

// NoteHead counts how long an HTTP request had waited for its response's head
// when that came.
func (e *Endpoint) NoteHead(d time.Duration) { e.upstream.options.Latencies.Head.Observe(d) }
