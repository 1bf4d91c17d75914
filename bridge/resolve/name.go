package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// MaxAddresses is the number of addresses kept of an answer. The selection
	// does not depend on their order.
	MaxAddresses = 256

	minTTL = time.Second // lower bound of a lifetime
	maxTTL = time.Hour

	askTime    = 20 * time.Second // timeout of one complete answer
	serverTime = 2 * time.Second  // timeout of one of Query.Servers, before the next is queried
	rounds     = 2                // queries per server
	maxAtOnce  = 8                // SRV targets looked up concurrently
)

// A Query requests the A and AAAA records of Host, or the SRV records of SRV
// and the addresses of their targets.
type Query struct {
	Host   string // without a trailing dot
	Rooted bool   // Host had a trailing dot: no search domain is appended
	Port   uint16 // the port for Host

	SRV string // "" with Host

	// Servers replace the system's servers and are tried in order; search domains
	// are then not used. /etc/hosts still applies.
	Servers []netip.AddrPort
}

// Equal reports whether two Queries are the same.
func (q Query) Equal(other Query) bool {
	return q.Host == other.Host && q.Rooted == other.Rooted && q.Port == other.Port && q.SRV == other.SRV && slices.Equal(q.Servers, other.Servers)
}

// String returns the name to look up.
func (q Query) String() string { return cmp.Or(q.Host, q.SRV) }

// An Address is one address of an Answer.
type Address struct {
	At     netip.AddrPort `json:"at"`
	Name   string         `json:"name"`             // Query.Host, or the SRV record's target; without a trailing dot
	Weight int            `json:"weight"`           // relative to the others; at least 1
	Backup bool           `json:"backup,omitempty"` // from an SRV record of a lower priority
}

// An Answer is the result of a Query.
type Answer struct {
	// Addresses are sorted, backups last, without duplicates. The caller must not
	// modify them.
	Addresses []Address `json:"addresses"`

	// TTL is the lifetime of the answer, from the records' time to live, between
	// 1s and 1h. 0: unknown, as with /etc/hosts.
	TTL time.Duration `json:"ttl,omitempty"`

	Time time.Time `json:"time,omitzero"` // time of the last complete answer, or zero
}

// A Name is a Query that is repeated. A part that cannot be resolved keeps its
// last known value: the whole Query, an SRV target, or one address family of
// either. All methods may be called concurrently.
type Name struct {
	query  Query
	asking chan struct{}           // holds a token during a lookup
	hosts  map[string][]netip.Addr // last known addresses; owned by the holder of the token
	good   atomic.Int32            // index in Query.Servers of the server that answered last
	routed func(netip.Addr) bool   // reports whether the address is routable

	mu     sync.Mutex
	answer Answer
}

// NewName returns a Name for q, without looking it up.
func NewName(q Query) *Name {
	q.Servers = slices.Clone(q.Servers)
	return &Name{query: q, asking: make(chan struct{}, 1), routed: isRouted}
}

// Query returns the Query. The caller must not modify its Servers.
func (n *Name) Query() Query { return n.query }

// Last returns the last answer, without addresses if there was no answer yet.
func (n *Name) Last() Answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.answer
}

// Adopt makes an answer of another process the last one, unless n has an answer.
func (n *Name) Adopt(a Answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.answer.Addresses) == 0 {
		n.answer = a
	}
}

// Ask looks up the Query, for at most 20s. With an error it also returns the
// last known answer, like Last. Parts of it may be new. If a lookup is in
// progress, Ask waits for it and then starts its own.
func (n *Name) Ask(ctx context.Context) (Answer, error) {
	select {
	case n.asking <- struct{}{}:
		defer func() { <-n.asking }()
	case <-ctx.Done():
		return n.Last(), &net.DNSError{Err: ctx.Err().Error(), Name: n.query.String(), IsTimeout: true, IsTemporary: true, UnwrapErr: ctx.Err()}
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	targets, ttl, err := n.targets(ctx)
	if err != nil {
		return n.Last(), err
	}
	at := make([][]netip.Addr, len(targets))
	hosts := make(map[string][]netip.Addr)
	for i, found := range n.lookUpAll(ctx, targets) {
		host := targets[i].name
		addrs, kept := found.since(n.hosts[host])
		if len(addrs) > 0 {
			at[i], hosts[host] = addrs, addrs
		}
		if kept && found.err == nil {
			found.err = &net.DNSError{Err: "no answer for one address family", Name: host, IsTemporary: true}
		}
		err = cmp.Or(err, found.err)
		ttl = least(ttl, found.ttl)
	}
	all := sorted(addressesOf(targets, at))
	if len(all) == 0 {
		return n.Last(), cmp.Or(err, error(&net.DNSError{Err: "no address to connect to", Name: n.query.String(), IsNotFound: true}))
	}
	n.hosts = hosts
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer.Addresses = all
	if err == nil {
		n.answer.TTL, n.answer.Time = ttl, time.Now()
	}
	return n.answer, err
}

// least returns the shorter of two lifetimes, where 0 means unknown.
func least(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// hostResult holds the addresses of one host.
type hostResult struct {
	addrs []netip.Addr
	whole bool // both families are known
	ttl   time.Duration
	err   error
}

// since returns the addresses. It takes missing families from before.
func (f hostResult) since(before []netip.Addr) (addrs []netip.Addr, kept bool) {
	if f.err != nil {
		return before, len(before) > 0
	}
	if f.whole {
		return f.addrs, false
	}
	addrs = slices.Clone(f.addrs)
	for _, is4 := range []bool{true, false} {
		family := func(a netip.Addr) bool { return a.Is4() == is4 }
		if slices.ContainsFunc(f.addrs, family) {
			continue
		}
		for _, a := range before {
			if family(a) {
				addrs, kept = append(addrs, a), true
			}
		}
	}
	return addrs, kept
}

// lookUpAll looks up the targets' hosts concurrently.
func (n *Name) lookUpAll(ctx context.Context, targets []target) []hostResult {
	out := make([]hostResult, len(targets))
	slots := make(chan struct{}, maxAtOnce)
	var wg sync.WaitGroup
	for i, t := range targets {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			defer catch(&out[i].err)
			out[i] = n.lookUp(ctx, t.lookup)
		})
	}
	wg.Wait()
	return out
}

// lookUp returns the addresses of a host.
func (n *Name) lookUp(ctx context.Context, host string) hostResult {
	var f hostResult
	f.err = n.ask(ctx, func(l *lookup) error {
		addrs, err := l.resolver().LookupNetIP(l.ctx, "ip", host)
		f.addrs, f.whole, f.ttl = n.usable(addrs), l.whole(), l.goodFor()
		return err
	})
	return f
}

// usable returns at most MaxAddresses addresses that can belong to a server,
// sorted, without duplicates. It drops 0.0.0.0, because a connection to it
// reaches this machine. It drops addresses without a route, such as IPv6
// addresses on most IPv4-only machines, because such an endpoint would always
// be down. If no address has a route, it keeps all of them.
func (n *Name) usable(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); !a.IsUnspecified() && !a.IsMulticast() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	out = slices.Compact(out)
	out = out[:min(len(out), MaxAddresses)]
	if routed := slices.DeleteFunc(slices.Clone(out), func(a netip.Addr) bool { return !n.routed(a) }); len(routed) > 0 {
		return routed
	}
	return out
}

// isRouted reports whether this machine has a route to an address. Connecting
// a UDP socket looks one up, and sends nothing.
func isRouted(a netip.Addr) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) // unknown: assume a route
	}
	c.Close()
	return true
}

// ask looks up one name: from the system's servers, or from the first of
// Query.Servers that answers.
func (n *Name) ask(ctx context.Context, do func(*lookup) error) error {
	servers := n.query.Servers
	if len(servers) == 0 {
		return doWithin(ctx, askTime, netip.AddrPort{}, do)
	}
	var err error
	for range rounds {
		first := int(n.good.Load())
		for i := range servers {
			at := (first + i) % len(servers)
			err = doWithin(ctx, serverTime, servers[at], do)
			if err == nil || isNotFound(err) {
				n.good.Store(int32(at))
				return err
			}
			if ctx.Err() != nil {
				return err
			}
		}
	}
	return err
}

func doWithin(ctx context.Context, most time.Duration, server netip.AddrPort, do func(*lookup) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	l := &lookup{ctx: ctx, server: server}
	err := do(l)
	if panicked := l.panicked(); panicked != nil {
		return panicked
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok && server.IsValid() {
		// The resolver would name the system's server in the error.
		named := *e
		named.Server, named.Name = server.String(), strings.TrimSuffix(e.Name, ".")
		return &named
	}
	return err
}

// isNotFound reports whether the name does not exist.
func isNotFound(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// asked returns the name to look up.
func (n *Name) asked(name string) string {
	if n.query.Rooted || len(n.query.Servers) > 0 {
		return name + "." // no search domains
	}
	return name
}

// targets returns the hosts to look up, and the lifetime of that list.
func (n *Name) targets(ctx context.Context) ([]target, time.Duration, error) {
	q := n.query
	if q.SRV == "" {
		return []target{{name: q.Host, lookup: n.asked(q.Host), port: q.Port, weight: 1}}, 0, nil
	}
	var records []*net.SRV
	var ttl time.Duration
	err := n.ask(ctx, func(l *lookup) (err error) {
		_, records, err = l.resolver().LookupSRV(l.ctx, "", "", n.asked(q.SRV))
		ttl = l.goodFor()
		if len(records) > 0 {
			err = nil // otherwise malformed names were dropped
		}
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	targets := targetsOf(records)
	if len(targets) == 0 {
		return nil, 0, &net.DNSError{Err: fmt.Sprintf("none of %d SRV records names a server", len(records)), Name: q.SRV, IsNotFound: true}
	}
	return targets, ttl, nil
}
