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
	// MaxAddresses is how many addresses of an answer are kept. Which ones does not
	// depend on their order in it.
	MaxAddresses = 256

	minTTL = time.Second // what is good for less is good for so long
	maxTTL = time.Hour

	askTime    = 20 * time.Second // for everything that one answer takes
	serverTime = 2 * time.Second  // for one of Query.Servers, before the next is asked
	rounds     = 2                // how often each of those is asked
	maxAtOnce  = 8                // targets of SRV records asked for at once
)

// A Query is what is asked for: the A and AAAA records of Host, or the SRV records
// of SRV and the addresses of their targets.
type Query struct {
	Host   string // without a trailing dot
	Rooted bool   // Host had one: no search domain is appended
	Port   uint16 // with Host

	SRV string // "" with Host

	// Servers are asked in place of the system's, the next if one does not
	// answer; search domains are then none. /etc/hosts has its say all the same.
	Servers []netip.AddrPort
}

// Equal reports whether two Queries ask for the same.
func (q Query) Equal(other Query) bool {
	return q.Host == other.Host && q.Rooted == other.Rooted && q.Port == other.Port && q.SRV == other.SRV && slices.Equal(q.Servers, other.Servers)
}

// String returns the name that is asked for.
func (q Query) String() string { return cmp.Or(q.Host, q.SRV) }

// An Address is one that a Query was answered with.
type Address struct {
	At     netip.AddrPort
	Name   string // Query.Host, or the SRV record's target; without a trailing dot
	Weight int    // relative to the others'; at least 1
	Backup bool   // of an SRV record whose priority comes after that of others
}

// An Answer is what a Query was answered with.
type Answer struct {
	// Addresses are sorted, the backups last; each is there once. The caller must
	// not modify them.
	Addresses []Address

	// TTL is for how long it is good, by the records' time to live: from 1s to 1h.
	// 0: nothing says so, as with /etc/hosts.
	TTL time.Duration

	Time time.Time // when it was given in full; zero: never
}

// A Name is a Query that is asked again and again. What could not be learnt is as
// it was before: of all the Query, of a target of SRV records, or of a family of
// addresses of either. All methods may be called concurrently.
type Name struct {
	query  Query
	asking chan struct{}           // holds one while the Query is asked
	hosts  map[string][]netip.Addr // as last known; of whoever asks
	good   atomic.Int32            // which of Query.Servers answered last
	routed func(netip.Addr) bool   // is there a way to the address?

	mu     sync.Mutex
	answer Answer
}

// NewName returns a Name for q, which it does not ask yet.
func NewName(q Query) *Name {
	q.Servers = slices.Clone(q.Servers)
	return &Name{query: q, asking: make(chan struct{}, 1), routed: isRouted}
}

// Query returns what is asked. The caller must not modify its Servers.
func (n *Name) Query() Query { return n.query }

// Last returns the last answer; without addresses if there was none yet.
func (n *Name) Last() Answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.answer
}

// Ask asks the Query, for at most 20s. With an error the answer is what is known
// all the same, as Last returns it, of which a part may be new. If another
// goroutine asks already, Ask waits for it and then asks too.
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
			found.err = &net.DNSError{Err: "there is no answer about one family of addresses", Name: host, IsTemporary: true}
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

// least returns the shorter of two times to live, of which 0 is none.
func least(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// found is the addresses of one host.
type found struct {
	addrs []netip.Addr
	whole bool // none is missing
	ttl   time.Duration
	err   error
}

// since returns the addresses, and in place of what is missing what there was
// before.
func (f found) since(before []netip.Addr) (addrs []netip.Addr, kept bool) {
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

// lookUpAll looks up the targets' hosts, several at once.
func (n *Name) lookUpAll(ctx context.Context, targets []target) []found {
	out := make([]found, len(targets))
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
func (n *Name) lookUp(ctx context.Context, host string) found {
	var f found
	f.err = n.ask(ctx, func(l *lookup) error {
		addrs, err := l.resolver().LookupNetIP(l.ctx, "ip", host)
		f.addrs, f.whole, f.ttl = n.usable(addrs), l.whole(), l.goodFor()
		return err
	})
	return f
}

// usable returns the addresses that can be those of a server, each once, sorted,
// and no more than are kept. To connect to 0.0.0.0 is to connect to oneself, which
// is not what those mean who answer with it. What there is no way to from this
// machine, as to IPv6 from most that have IPv4 alone, is left out as long as there
// is anything else: it would be an endpoint that is always down.
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

// isRouted reports whether this machine has a way to an address. Connecting a UDP
// socket looks for one, and sends nothing.
func isRouted(a netip.Addr) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) // who knows
	}
	c.Close()
	return true
}

// ask has one name looked up: by the system's servers, or by the first of the
// Query's that has an answer.
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
		// The resolver knows only of the system's servers.
		told := *e
		told.Server, told.Name = server.String(), strings.TrimSuffix(e.Name, ".")
		return &told
	}
	return err
}

// isNotFound reports whether the answer was that there is nothing.
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

// targets returns the hosts to look up, and for how long it is those.
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
			err = nil // else some names are malformed, and left out
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
