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
	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Purpose is the use of a connection. It selects the TLS settings, which
// differ in their ALPN protocols.
type Purpose int

const (
	Stream Purpose = iota // bytes of an L4 bridge
	HTTP                  // requests
)

// Options configure an Upstream. The zero value of every field except Name is
// valid.
type Options struct {
	Name      string
	Endpoints []EndpointOptions
	DNS       *DNSOptions // replaces Endpoints; nil: Endpoints is the fixed list

	// Connect opens every connection to an endpoint: for traffic, for health checks and
	// in advance. The PROXY protocol and TLS follow on the connection that it returns,
	// which the Upstream owns. Connect must return when ctx ends, and may be called
	// concurrently. Nil: resolve.Dial.
	Connect func(ctx context.Context, network, address string) (net.Conn, error)

	ConnectTimeout   time.Duration // timeout of TCP, including name resolution; 0: 5s
	HandshakeTimeout time.Duration // timeout of TLS, including Starttls; 0: 10s

	// Starttls is the plaintext protocol in which the gateway requests TLS from
	// each endpoint. With None connections begin with TLS. It has no effect on an
	// upstream in plaintext.
	Starttls starttls.Protocol

	// ProxyProtocol is the version of the PROXY protocol in which the client of
	// each connection is announced: see Announce. Zero: no announcement.
	ProxyProtocol proxyproto.Version

	Policy Policy
	Hash   HashKey // for ConsistentHash: the property that determines the Keys of Turns
	Limits Limits

	// SlowStart is how long the share of an endpoint grows from a tenth to its
	// full size if the endpoint comes up while others take traffic. 0: it has its
	// full share at once.
	SlowStart time.Duration

	// Replaces is the Upstream that carried this upstream's traffic until now.
	// Endpoints it lacks are new. Endpoints that both have keep the results of
	// checks of the same Kind, and their ejections. Nil: all endpoints are new,
	// and none starts slowly. New does not keep a reference to Replaces.
	Replaces *Upstream

	// IdleTimeout is how long traffic may wait for the next byte. 0: the callers'
	// own limits.
	IdleTimeout time.Duration

	// StreamAge is the maximum age of a connection of the purpose Stream; each ends up
	// to a tenth earlier. 0: no limit. The caller of DialAs ends connections.
	StreamAge time.Duration

	// Warm is the number of TLS connections of the purpose Stream kept ready to each
	// endpoint that takes new connections, after Start. Their handshakes are
	// complete, and DialAs hands them out. Clients of the upstream must send first.
	// Warm is ignored if no connection can be opened in advance: for plaintext, and
	// if the server name depends on the client, the client is announced, or the
	// server speaks first. 0: no warm connections.
	Warm int

	// WarmAge is how long a connection is kept ready. 0: 50s.
	WarmAge time.Duration

	// Filling bounds the concurrent dials of warm connections by all Upstreams
	// that share it. Nil: each endpoint has its own bound.
	Filling chan struct{}

	// RetryBudget bounds retries of HTTP requests. Nil: 20 percent, with a minimum
	// of 3.
	RetryBudget *RetryBudget

	// Descriptors limits the file descriptors of the process, including
	// connections to upstreams. May be nil.
	Descriptors *socket.Descriptors

	// Check configures health checks after Start. Without CheckOptions.Check no
	// endpoint is checked.
	Check CheckOptions

	// Outliers configures outlier detection. Nil disables it.
	Outliers *OutlierOptions

	// Tracker is shared by the revisions of the upstream. Nil: connections are not
	// tracked.
	Tracker *Tracker

	// Latencies is shared by the revisions of the upstream. Nil: the Upstream has
	// its own.
	Latencies *Latencies

	// Observer receives Events of endpoints on the goroutine that dials. It must
	// not block. Nil: Events are dropped.
	Observer func(Event)

	Logger hclog.Logger // nil discards
}

// EndpointOptions configure one Endpoint.
type EndpointOptions struct {
	Network, Address string // "tcp" and host:port, or "unix" and a path
	Authority        string // the endpoint's name in a request's Host; "": Address
	Weight           int    // share relative to the others'; 0: 1
	Backup           bool   // tried only after every primary
	Draining         bool   // takes no new connections

	// The TLS settings for each purpose, for this endpoint only. Nil: plaintext.
	Stream, HTTP *certs.Client
}

// client returns the TLS settings for a purpose; nil means plaintext.
func (o *EndpointOptions) client(p Purpose) *certs.Client {
	if p == HTTP {
		return o.HTTP
	}
	return o.Stream
}

// clients returns the distinct TLS settings.
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
	replaced    map[address]*Endpoint // endpoints of the replaced Upstream; nil once New has returned

	group   atomic.Pointer[group] // never nil
	members membership
	dns     *discovery // nil: endpoints are fixed
	made    time.Time

	queue       queue
	inProgress  quota
	connections connections
	perEndpoint int64 // limit of connections
	overloaded  atomic.Uint64
	evictIdle   func(*Endpoint, any) bool // see SetEvictIdle; nil: no owner keeps idle connections
}

// New returns an Upstream with the given options. It dials nothing.
func New(o Options) *Upstream {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Latencies == nil {
		o.Latencies = new(Latencies)
	}
	if o.Connect == nil {
		o.Connect = resolve.Dial
	}
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 5*time.Second)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 10*time.Second)
	o.Limits.PendingTimeout = cmp.Or(o.Limits.PendingTimeout, 5*time.Second)
	u := &Upstream{options: o, log: o.Logger.With("upstream", o.Name), announces: o.ProxyProtocol != proxyproto.None, made: time.Now(), coordinator: new(coordinator)}
	u.inProgress.most, u.connections.most, u.perEndpoint = int64(o.Limits.Requests), int64(o.Limits.Connections), int64(o.Limits.ConnectionsPerEndpoint)
	u.retries.inProgress, u.retries.budget = &u.inProgress, defaultRetryBudget
	if o.RetryBudget != nil {
		u.retries.budget = *o.RetryBudget
	}
	if o.Replaces != nil {
		u.coordinator, u.replaced = o.Replaces.coordinator, o.Replaces.byAddress()
	}
	endpoints := make([]*Endpoint, len(o.Endpoints))
	for i, eo := range o.Endpoints {
		endpoints[i] = u.newEndpoint(eo)
	}
	if o.DNS != nil {
		u.dns, endpoints = u.discover(*o.DNS)
	}
	for _, e := range endpoints {
		e.inheritStart(o.Replaces)
	}
	u.options.DNS, u.options.Replaces, u.replaced = nil, nil, nil // otherwise each revision would keep all earlier ones alive
	u.group.Store(newGroup(o.Policy, endpoints))
	return u
}

// Name returns the upstream's name.
func (u *Upstream) Name() string { return u.options.Name }

// Endpoints returns the current endpoints, as configured. The caller must not
// modify the slice.
func (u *Upstream) Endpoints() []*Endpoint { return u.group.Load().endpoints }

// Hash returns the property that determines u's Keys, or the zero HashKey if u
// uses no Keys.
func (u *Upstream) Hash() HashKey {
	if u.options.Policy != ConsistentHash {
		return HashKey{}
	}
	return u.options.Hash
}

// IdleTimeout returns how long traffic may wait for the next byte; 0: no
// limit.
func (u *Upstream) IdleTimeout() time.Duration { return u.options.IdleTimeout }

// StreamAge returns the maximum age of a connection of the purpose Stream; 0: no
// limit.
func (u *Upstream) StreamAge() time.Duration { return u.options.StreamAge }

// FromHost reports whether the server name comes from the host given to
// DialAs, so that a connection serves only that host.
func (u *Upstream) FromHost() bool {
	return u.group.Load().fromHost || u.dns != nil && u.dns.options.FromHost
}

// Sessions returns the number of TLS sessions that u holds with its endpoints.
func (u *Upstream) Sessions() int {
	n := 0
	for _, e := range u.Endpoints() {
		for _, c := range e.options.clients() {
			n += c.Sessions()
		}
	}
	return n
}

// Flush forgets every TLS session with the endpoints, so that the next
// handshakes are full. It returns how many it forgot.
func (u *Upstream) Flush() int {
	n := 0
	for _, e := range u.Endpoints() {
		for _, c := range e.options.clients() {
			n += c.Flush()
		}
	}
	return n
}

// Start starts health checks, warm connections and DNS lookups, as configured.
// It is called when u starts to take traffic; before that, u dials and looks
// up nothing. The caller must call Retire in the end. Further calls have no
// effect.
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

// Retire ends checks and lookups and closes warm connections for good, and
// returns when all background work has ended. Later calls of Dial open new
// connections.
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

// Dial is DialAs without a host.
func (u *Upstream) Dial(ctx context.Context, p Purpose) (net.Conn, *Endpoint, error) {
	return u.DialAs(ctx, p, "")
}

// DialAs connects to the first endpoint of a Turn that accepts a connection.
// For a Stream it may hand out a warm connection. Each endpoint has its own
// connect and handshake timeouts; ctx bounds the total. Host is as in
// Endpoint.DialAs.
//
// The connection is a *tls.Conn after its handshake or, for a plaintext
// endpoint, a *socket.Socket. The caller owns and closes it; it is independent
// of ctx. The Socket of a warm connection is in the mode of Socket.Stream, so a
// caller that wants a Stream should always call Socket.Stream. The error is a
// *DialError, several of them joined, ErrNoEndpoint or ErrOverloaded. The
// connection does not count as a request.
func (u *Upstream) DialAs(ctx context.Context, p Purpose, host string) (net.Conn, *Endpoint, error) {
	var t Turn
	t.Begin(u, Key{})
	defer t.End()
	return t.Dial(ctx, p, host)
}

// Status describes each endpoint, in the configured order. Endpoints that left DNS are
// listed last, as long as they have connections and for a while longer.
func (u *Upstream) Status() []EndpointStatus {
	present, gone := u.all()
	var all []EndpointStatus
	for _, e := range slices.Concat(present, gone) {
		all = append(all, e.status())
	}
	return all
}

// Counts is Status without the slow fields VerifiedBy and PeerCertificate.
func (u *Upstream) Counts() []EndpointStatus {
	present, gone := u.all()
	all := make([]EndpointStatus, 0, len(present)+len(gone))
	for _, e := range present {
		all = append(all, e.countsNow())
	}
	for _, e := range gone {
		all = append(all, e.countsNow())
	}
	return all
}

// DNS describes the lookups of the endpoints. It returns nil if they do not
// come from DNS.
func (u *Upstream) DNS() *DNSStatus { return u.dns.status() }
