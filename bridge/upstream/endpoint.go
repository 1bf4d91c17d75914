package upstream

import (
	"cmp"
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An Endpoint is one address of an Upstream. Each embedded part has one job;
// methods of Endpoint combine several parts. All methods may be called
// concurrently.
type Endpoint struct {
	upstream *Upstream
	dialer
	trafficShare
	capacity
	results

	name *Name        // a separate allocation, see Name
	seed uint64       // seed of the endpoint's bids for slots of a consistent hash
	gone atomic.Int64 // when it left its upstream's group, in nanoseconds since 1970; 0: it is a member

	warm    *warmPool // nil: no warm connections
	checker *checker  // nil: there is no health check
	outlier *outlier  // nil: no outlier detection
	health  *health   // shared with checker, if that is not nil
}

// newEndpoint returns an endpoint of u. It is not in u's group yet.
func (u *Upstream) newEndpoint(o EndpointOptions) *Endpoint {
	e := &Endpoint{upstream: u, name: &Name{u.Name(), o.Address}, health: new(health), seed: xxhash.Sum64String(o.Network + " " + o.Address)}
	e.dialer.upstream, e.dialer.options = u, o
	e.trafficShare.upstream, e.capacity.upstream, e.results.endpoint = u, u, e
	e.setShare(o.Weight, o.Backup)
	e.inProgress.most, e.connections.most = int64(u.options.Limits.RequestsPerEndpoint), u.perEndpoint
	for _, c := range o.clients() {
		e.fromHost = e.fromHost || c.Options().FromHost
	}
	e.watch()
	e.inherit(u.replaced[address{o.Network, o.Address}])
	if u.options.Warm > 0 && !u.options.Starttls.ServerSpeaksFirst() && o.Stream != nil && !o.Draining && !e.fromHost && !u.announces {
		e.keepWarm()
	}
	return e
}

// takesTraffic reports whether the endpoint takes traffic now. Every choice calls it,
// even under the queue's lock, so it takes no lock. Code that changes the
// result calls upstream.changed or cameUp.
func (e *Endpoint) takesTraffic() bool { return !e.Draining() && e.isUsable() }

// Network returns "tcp" or "unix".
func (e *Endpoint) Network() string { return e.options.Network }

// Address returns the endpoint's host:port or path.
func (e *Endpoint) Address() string { return e.options.Address }

// SameAddress reports whether both endpoints have the same address.
func (e *Endpoint) SameAddress(o *Endpoint) bool {
	return e.options.Network == o.options.Network && e.options.Address == o.options.Address
}

// A Name names an endpoint and its upstream. It keeps neither of them in
// memory.
type Name struct{ Upstream, Endpoint string }

// Name returns the endpoint's name, always the same pointer.
func (e *Endpoint) Name() *Name { return e.name }

// SideOf describes a connection to the endpoint for a purpose.
func (e *Endpoint) SideOf(conn net.Conn, p Purpose) live.Side {
	side := live.SideOf(conn)
	if client := e.Client(p); client != nil && client.Certificate() != nil {
		side.Certificate = client.Certificate().Fingerprint()
	}
	return side
}

// Authority returns the endpoint's name for a Host header: host:port, or a
// path.
func (e *Endpoint) Authority() string { return cmp.Or(e.options.Authority, e.options.Address) }

// Backup reports whether the endpoint is used only if no primary is available.
// Draining reports whether it takes no new connections.
func (e *Endpoint) Backup() bool   { return e.backup.Load() }
func (e *Endpoint) Draining() bool { return e.options.Draining || e.Left() }

// Client returns the TLS settings for a purpose; nil: plaintext.
func (e *Endpoint) Client(p Purpose) *certs.Client { return e.options.client(p) }

// DialAs connects to the endpoint and, unless it is plaintext, completes the
// TLS handshake, each within its own timeout and ctx. It counts the result and
// logs a failure, unless ctx was canceled, which says nothing about the
// endpoint. The connection is as in Upstream.Dial; the error is a *DialError
// or ErrFull.
//
// Host is the DNS name or IP address that the client requested, or "" if
// unknown. If the upstream takes the server name from Host, a connection
// without a host fails with LOCAL_CONFIG before it is dialed.
func (e *Endpoint) DialAs(ctx context.Context, p Purpose, host string) (net.Conn, error) {
	return e.DialPooled(ctx, p, host, nil)
}

// DialPooled is DialAs for a connection that the holder keeps for reuse. The holder,
// which may be nil, is notified when the connection is drained.
func (e *Endpoint) DialPooled(ctx context.Context, p Purpose, host string, holder Holder) (net.Conn, error) {
	if e.fromHost && e.Client(p) != nil && host == "" {
		return nil, e.failed(ctx, e.failure("tls", 0, errNoHost))
	}
	if err := e.acquireConnection(); err != nil {
		return nil, err
	}
	if t, ok := ctx.Value(turnKey{}).(*Turn); ok {
		t.Connected() // from here on, acquireConnection's count replaces the claim
	}
	return e.dialCounted(ctx, p, host, holder)
}

// dialCounted is DialPooled for a connection that acquireConnection counted.
func (e *Endpoint) dialCounted(ctx context.Context, p Purpose, host string, holder Holder) (net.Conn, error) {
	client := e.Client(p)
	traceOf(ctx).Endpoint = e
	conn, failure := e.dial(ctx, client, host, holder)
	if failure != nil && isNarrow(failure.Err) {
		conn, failure = e.dial(ctx, client, host, holder)
	}
	if failure != nil {
		e.releaseConnection()
		return nil, e.failed(ctx, failure)
	}
	if e.upstream.LimitsConnections() {
		socket.Of(conn).OnClose(e.releaseConnection)
	}
	e.succeeded(p)
	return conn, nil
}

// errNoHost rejects a connection without a host for the server name.
var errNoHost = &certs.VerifyError{
	Reason: certs.ReasonLocalConfig,
	Detail: "the server name comes from the request's host or the client's SNI, and the client sent none",
}

// Left reports whether the endpoint has left its upstream. Connections to it
// must not be kept.
func (e *Endpoint) Left() bool { return e.gone.Load() != 0 }

// start starts the endpoint's background work, end stops it for good, and wait
// returns when it has ended. An endpoint that left gets new connections only
// from Turns that chose it before. Open connections continue.
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

// inheritStart copies the time when the endpoint came up from the replaced
// Upstream, so that its slow start continues. Nil: no Upstream was replaced.
func (e *Endpoint) inheritStart(replaced *Upstream) {
	period := e.upstream.options.SlowStart
	if replaced == nil || period == 0 || len(replaced.Endpoints()) == 0 {
		return
	}
	begun := e.upstream.made
	for _, before := range replaced.Endpoints() {
		if before.options.Network != e.options.Network || before.options.Address != e.options.Address || !before.takesTraffic() {
			continue
		}
		since := before.since.Load()
		if since == 0 {
			return
		}
		begun = replaced.made.Add(time.Duration(since - 1))
	}
	// The value is negative if the endpoint came up before its Upstream was
	// created.
	e.since.Store(int64(begun.Sub(e.upstream.made)) + 1)
}

func (e *Endpoint) notify(event Event) {
	event.Endpoint = e.Address()
	e.upstream.notify(event)
}

// NoteRequest counts an HTTP request sent to the endpoint.
func (e *Endpoint) NoteRequest() { e.counts.requests.Add(1) }

// NoteHead records the time from a request to its response's head.
func (e *Endpoint) NoteHead(d time.Duration) { e.upstream.options.Latencies.Head.Observe(d) }
