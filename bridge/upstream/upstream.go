package upstream

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// ErrNoEndpoint reports that an upstream has no endpoint that takes new
// connections: it has none, or all are draining.
var ErrNoEndpoint = errors.New("no endpoint takes new connections")

// A Purpose says what a connection is for, and so which TLS settings it is
// made with: they differ in the protocols offered by ALPN.
type Purpose int

const (
	Stream Purpose = iota // bytes of an L4 bridge
	HTTP                  // requests
)

// Options describe an Upstream. Every zero field is useful but Name.
type Options struct {
	Name      string
	Endpoints []EndpointOptions

	ConnectTimeout   time.Duration // for TCP, name resolution included; 0: 5s
	HandshakeTimeout time.Duration // for TLS; 0: 10s

	// ProxyProtocol is by which version of the PROXY protocol the endpoints are
	// told whose connection each is: see Announce. None: they are not told.
	ProxyProtocol proxyproto.Version

	// Warm is how many TLS connections of the purpose Stream are kept ready to
	// each endpoint that takes new connections, once Start was called: their
	// handshakes are over, and DialAs gives them out. It is ignored where there is
	// nothing to make ready: for plaintext, and where the server name comes with
	// each client, or the client is announced. 0: none. The upstream must be one whose clients speak first.
	Warm int

	// WarmAge is how long a connection is kept ready. 0: 50s.
	WarmAge time.Duration

	// Filling has room for as many connections as are made ready at once by all
	// the Upstreams that share it. Nil: each endpoint has a bound of its own.
	Filling chan struct{}

	// RetryBudget bounds retries of HTTP requests. Nil: 20 percent, but 3 at least.
	RetryBudget *RetryBudget

	// Descriptors shares out the process's, connections to upstreams among them.
	// It may be nil.
	Descriptors *socket.Descriptors

	// Tracker is that of the upstream's name, which other revisions of it
	// share. Nil: its connections are not tracked.
	Tracker *Tracker

	// Latencies is that of the upstream's name, which other revisions of it
	// share. Nil: the Upstream has one of its own.
	Latencies *Latencies

	// Observer is told what happens to endpoints, from the goroutine that
	// dials. It must not block. Nil: nobody is told.
	Observer func(Event)

	Logger hclog.Logger // nil discards
}

// EndpointOptions describe one Endpoint.
type EndpointOptions struct {
	Network, Address string // "tcp" and host:port, or "unix" and a path
	Weight           int    // share relative to the others'; 0: 1
	Backup           bool   // tried only after every endpoint that is not
	Draining         bool   // takes no new connections

	// The TLS settings for each purpose, of this endpoint alone.
	// Nil: plaintext.
	Stream, HTTP *certs.Client
}

// An Upstream is a group of endpoints that serve the same thing. All methods
// may be called concurrently.
type Upstream struct {
	name      string
	endpoints []*Endpoint // as configured
	announces bool
	retries   Retries

	primaries, backups *balancer
	only               []*Endpoint // the answer of Order when there is but one
}

// New returns the Upstream that o describes. It dials nothing.
func New(o Options) *Upstream {
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	log = log.With("upstream", o.Name)
	if o.Latencies == nil {
		o.Latencies = new(Latencies)
	}
	u := &Upstream{name: o.Name, announces: o.ProxyProtocol != proxyproto.None}
	u.retries.budget = defaultRetryBudget
	if o.RetryBudget != nil {
		u.retries.budget = *o.RetryBudget
	}
	var primaries, backups []*Endpoint
	for _, eo := range o.Endpoints {
		e := &Endpoint{
			upstream:         o.Name,
			options:          eo,
			connectTimeout:   cmp.Or(o.ConnectTimeout, 5*time.Second),
			handshakeTimeout: cmp.Or(o.HandshakeTimeout, 10*time.Second),
			log:              log,
			proxyProtocol:    o.ProxyProtocol,
			tracker:          o.Tracker,
			latencies:        o.Latencies,
			descriptors:      o.Descriptors,
			observer:         o.Observer,
		}
		for _, c := range e.clients() {
			e.fromHost = e.fromHost || c.Options().FromHost
		}
		if o.Warm > 0 && eo.Stream != nil && !eo.Draining && !e.fromHost && !u.announces {
			e.keepWarm(o)
		}
		u.endpoints = append(u.endpoints, e)
		switch {
		case eo.Draining:
		case eo.Backup:
			backups = append(backups, e)
		default:
			primaries = append(primaries, e)
		}
	}
	u.primaries, u.backups = newBalancer(primaries), newBalancer(backups)
	if len(primaries)+len(backups) == 1 {
		u.only = slices.Concat(primaries, backups)
	}
	return u
}

// Name returns the upstream's name.
func (u *Upstream) Name() string { return u.name }

// Order returns the endpoints to try for one connection, best first. The
// first is the choice of smooth weighted round robin, the others follow in the
// order in which they are due, backups last. Draining ones are left out. The
// caller must not modify the slice.
func (u *Upstream) Order() []*Endpoint {
	if u.only != nil {
		return u.only
	}
	order := make([]*Endpoint, 0, len(u.primaries.shares)+len(u.backups.shares))
	order = u.primaries.next(order)
	return u.backups.next(order)
}

// FromHost reports whether the server name that an endpoint is asked for is that
// of the host given to DialAs, so that a connection serves no other host.
func (u *Upstream) FromHost() bool {
	return slices.ContainsFunc(u.endpoints, func(e *Endpoint) bool { return e.fromHost })
}

// Flush forgets every TLS session with the endpoints, so that the next
// handshakes are full. It returns how many there were.
func (u *Upstream) Flush() int {
	n := 0
	for _, e := range u.endpoints {
		for _, c := range e.clients() {
			n += c.Flush()
		}
	}
	return n
}

// Start begins to keep warm connections, if Options ask for any. It is called
// when u has come to take traffic: before, nothing is dialled. The caller must
// call Retire in the end. Calling Start again changes nothing.
func (u *Upstream) Start() {
	for _, e := range u.endpoints {
		e.warm.start()
	}
}

// Retire closes the connections that are kept warm, for good, and returns when
// what Start began has ended. Whoever still calls Dial gets new connections.
func (u *Upstream) Retire() {
	for _, e := range u.endpoints {
		e.warm.end()
	}
	for _, e := range u.endpoints {
		e.warm.wait()
	}
}

// Dial is DialAs for a client that did not say which host it wants.
func (u *Upstream) Dial(ctx context.Context, p Purpose) (net.Conn, *Endpoint, error) {
	return u.DialAs(ctx, p, "")
}

// DialAs connects to the first endpoint of Order that can be connected to, which
// for a Stream may be by giving out a connection that was kept warm. Each
// endpoint is given its own connect and handshake timeouts; ctx bounds all.
// Host is as Endpoint.DialAs has it.
//
// The connection is a *tls.Conn whose handshake is complete, or, to a
// plaintext endpoint, a *socket.Socket. The caller owns and closes it, and it
// does not depend on ctx any more. If it was warm its Socket is read as
// Socket.Stream has it: whoever asks for a Stream had better call that in any
// case. The error is a *DialError, several of them joined, or ErrNoEndpoint.
func (u *Upstream) DialAs(ctx context.Context, p Purpose, host string) (net.Conn, *Endpoint, error) {
	var t Turn
	t.Begin(u, Key{})
	defer t.End()
	return t.Dial(ctx, p, host)
}

// Status tells what became of each endpoint, in the order configured.
func (u *Upstream) Status() []EndpointStatus {
	all := make([]EndpointStatus, len(u.endpoints))
	for i, e := range u.endpoints {
		all[i] = e.status()
	}
	return all
}

// A balancer orders endpoints by smooth weighted round robin, as nginx does:
// each time every endpoint gains its weight, and the one that has most is
// chosen and pays the total. So weights 5, 1, 1 give a a b a c a a rather than
// five in a row.
type balancer struct {
	mu     sync.Mutex
	shares []share
	total  int
}

type share struct {
	endpoint        *Endpoint
	weight, current int
}

func newBalancer(endpoints []*Endpoint) *balancer {
	b := &balancer{}
	for _, e := range endpoints {
		weight := max(e.options.Weight, 1)
		b.shares = append(b.shares, share{endpoint: e, weight: weight})
		b.total += weight
	}
	return b
}

// next appends the balancer's endpoints to order: the chosen one, then the
// others, those first that are due next.
func (b *balancer) next(order []*Endpoint) []*Endpoint {
	if len(b.shares) == 0 {
		return order
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	best := 0
	for i := range b.shares {
		b.shares[i].current += b.shares[i].weight
		if b.shares[i].current > b.shares[best].current {
			best = i
		}
	}
	chosen := &b.shares[best]
	order = append(order, chosen.endpoint)

	rest := len(order)
	for i := range b.shares {
		if i != best {
			order = append(order, b.shares[i].endpoint)
			b.shares[i].endpoint.due = b.shares[i].current
		}
	}
	slices.SortStableFunc(order[rest:], func(x, y *Endpoint) int { return cmp.Compare(y.due, x.due) })
	chosen.current -= b.total
	return order
}
