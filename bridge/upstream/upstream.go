package upstream

import (
	"cmp"
	"context"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

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
	DNS       *DNSOptions // in place of Endpoints; nil: those are all, for good

	ConnectTimeout   time.Duration // for TCP, name resolution included; 0: 5s
	HandshakeTimeout time.Duration // for TLS; 0: 10s

	// ProxyProtocol is by which version of the PROXY protocol the endpoints are
	// told whose connection each is: see Announce. None: they are not told.
	ProxyProtocol proxyproto.Version

	Policy Policy
	Hash   HashKey // of ConsistentHash: whose Keys those are that Turns begin with
	Limits Limits

	// SlowStart is how long the share of an endpoint that has come up, or back,
	// while others took traffic grows from a tenth to its own. 0: it has its own
	// at once.
	SlowStart time.Duration

	// Replaces is what took this upstream's traffic until now: endpoints that it
	// has not are new, and what is known of those that both have is known of them
	// here too: what they answered to checks of the same Kind, and that they are
	// ejected. Nil: all are new, and none begins slowly. It is not kept.
	Replaces *Upstream

	// IdleTimeout is how long those who carry traffic may wait for the next byte
	// of it. 0: no limit but their own.
	IdleTimeout time.Duration

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

	// Check is how endpoints are asked whether they are well, once Start was
	// called. Without Ask they are not.
	Check CheckOptions

	// Outliers say which endpoints are left alone for a while because of what
	// traffic met with. Nil: none is.
	Outliers *OutlierOptions

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
	Authority        string // what it is called in a request's Host; "": Address
	Weight           int    // share relative to the others'; 0: 1
	Backup           bool   // tried only after every endpoint that is not
	Draining         bool   // takes no new connections

	// The TLS settings for each purpose, of this endpoint alone.
	// Nil: plaintext.
	Stream, HTTP *certs.Client
}

// client returns the TLS settings for a purpose; nil means plaintext.
func (o *EndpointOptions) client(p Purpose) *certs.Client {
	if p == HTTP {
		return o.HTTP
	}
	return o.Stream
}

// clients returns the TLS settings there are, each once.
func (o *EndpointOptions) clients() []*certs.Client {
	stream, http := o.Stream, o.HTTP
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

// An Upstream is a group of endpoints that serve the same thing. All methods
// may be called concurrently.
type Upstream struct {
	options     Options // with the defaults filled in
	log         hclog.Logger
	announces   bool
	retries     Retries
	coordinator *coordinator
	before      map[address]*Endpoint // of the Upstream that this one replaces; nil once New has returned

	group   atomic.Pointer[group] // never nil
	members membership
	dns     *discovery // nil: endpoints do not change
	made    time.Time

	queue       queue
	underWay    quota
	connections connections
	perEndpoint int64 // limit of connections
	overloaded  atomic.Uint64
	evictIdle   func(*Endpoint, any) bool // see SetEvictIdle; nil: nobody keeps idle connections
}

// New returns the Upstream that o describes. It dials nothing.
func New(o Options) *Upstream {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Latencies == nil {
		o.Latencies = new(Latencies)
	}
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 5*time.Second)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 10*time.Second)
	o.Limits.PendingTimeout = cmp.Or(o.Limits.PendingTimeout, 5*time.Second)
	u := &Upstream{options: o, log: o.Logger.With("upstream", o.Name), announces: o.ProxyProtocol != proxyproto.None, made: time.Now(), coordinator: new(coordinator)}
	u.underWay.most, u.connections.most, u.perEndpoint = int64(o.Limits.Requests), int64(o.Limits.Connections), int64(o.Limits.ConnectionsPerEndpoint)
	u.retries.underWay, u.retries.budget = &u.underWay, defaultRetryBudget
	if o.RetryBudget != nil {
		u.retries.budget = *o.RetryBudget
	}
	if o.Replaces != nil {
		u.coordinator, u.before = o.Replaces.coordinator, o.Replaces.byAddress()
	}
	endpoints := make([]*Endpoint, len(o.Endpoints))
	for i, eo := range o.Endpoints {
		endpoints[i] = u.newEndpoint(eo)
	}
	if o.DNS != nil {
		u.dns, endpoints = u.discover(*o.DNS)
	}
	for _, e := range endpoints {
		e.follow(o.Replaces)
	}
	u.options.DNS, u.options.Replaces, u.before = nil, nil, nil // or each revision would keep all those before it
	u.group.Store(newGroup(o.Policy, endpoints))
	return u
}

// Name returns the upstream's name.
func (u *Upstream) Name() string { return u.options.Name }

// Endpoints returns the endpoints that there are now, as configured. The caller
// must not modify the slice.
func (u *Upstream) Endpoints() []*Endpoint { return u.group.Load().endpoints }

// Hash returns what the Keys are made of that matter to u; the zero HashKey: none
// does.
func (u *Upstream) Hash() HashKey {
	if u.options.Policy != ConsistentHash {
		return HashKey{}
	}
	return u.options.Hash
}

// IdleTimeout returns how long the next byte may be waited for; 0: no limit.
func (u *Upstream) IdleTimeout() time.Duration { return u.options.IdleTimeout }

// FromHost reports whether the server name that an endpoint is asked for is that
// of the host given to DialAs, so that a connection serves no other host.
func (u *Upstream) FromHost() bool {
	return u.group.Load().fromHost || u.dns != nil && u.dns.options.FromHost
}

// Flush forgets every TLS session with the endpoints, so that the next
// handshakes are full. It returns how many there were.
func (u *Upstream) Flush() int {
	n := 0
	for _, e := range u.Endpoints() {
		for _, c := range e.options.clients() {
			n += c.Flush()
		}
	}
	return n
}

// Start begins to check health and to keep warm connections, if Options ask for
// that, and to ask DNS for the endpoints. It is called when u has come to take traffic: before, nothing
// is dialled or asked. The caller must call Retire in the end. Calling Start again
// changes nothing.
func (u *Upstream) Start() {
	u.members.mu.Lock()
	if !u.members.started && !u.members.retired {
		u.members.started = true
		for _, e := range u.Endpoints() {
			e.start()
		}
	}
	u.members.mu.Unlock()
	if u.dns != nil {
		u.dns.start()
	}
}

// Retire ends the checks and closes the connections that are kept warm, for good,
// and returns when what Start began has ended. Whoever still calls Dial gets new connections.
func (u *Upstream) Retire() {
	u.members.mu.Lock()
	u.members.retired = true
	u.members.mu.Unlock()
	if u.dns != nil {
		u.dns.stop()
	}
	present, gone := u.all()
	for _, e := range present {
		e.end()
	}
	for _, e := range slices.Concat(present, gone) {
		e.wait()
	}
}

// Dial is DialAs for a client that did not say which host it wants.
func (u *Upstream) Dial(ctx context.Context, p Purpose) (net.Conn, *Endpoint, error) {
	return u.DialAs(ctx, p, "")
}

// DialAs connects to the first endpoint of a Turn that can be connected to, which
// for a Stream may be by giving out a connection that was kept warm. Each
// endpoint is given its own connect and handshake timeouts; ctx bounds all.
// Host is as Endpoint.DialAs has it.
//
// The connection is a *tls.Conn whose handshake is complete, or, to a
// plaintext endpoint, a *socket.Socket. The caller owns and closes it, and it
// does not depend on ctx any more. If it was warm its Socket is read as
// Socket.Stream has it: whoever asks for a Stream had better call that in any
// case. The error is a *DialError, several of them joined, ErrNoEndpoint or
// ErrOverloaded. The connection does not count as a request.
func (u *Upstream) DialAs(ctx context.Context, p Purpose, host string) (net.Conn, *Endpoint, error) {
	var t Turn
	t.Begin(u, Key{})
	defer t.End()
	return t.Dial(ctx, p, host)
}

// Status tells what became of each endpoint, in the order configured. After them
// come those that DNS has no more, for as long as they have connections and a
// while longer.
func (u *Upstream) Status() []EndpointStatus {
	present, gone := u.all()
	var all []EndpointStatus
	for _, e := range slices.Concat(present, gone) {
		all = append(all, e.status())
	}
	return all
}

// DNS tells what became of asking for the endpoints; nil if they do not come from
// DNS.
func (u *Upstream) DNS() *DNSStatus { return u.dns.status() }
