package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Resolver resolves the addresses of an Upstream: a *resolve.Name. Revisions
// of an upstream with equal queries share it, so that a new revision starts
// with the last answer.
type Resolver interface {
	Ask(context.Context) (resolve.Answer, error)
	Last() resolve.Answer
	Adopt(resolve.Answer)
}

// DNSOptions configure endpoints from DNS, instead of Options.Endpoints.
type DNSOptions struct {
	Resolver Resolver
	Refresh  time.Duration // time between lookups; 0: the answer's time to live, or 1min without one

	// Endpoint returns the options of the endpoint at an address. Weight and
	// Backup are taken from the address. Before is the endpoint that
	// Options.Replaces had at the address, or nil.
	Endpoint func(a resolve.Address, before *Endpoint) (EndpointOptions, error)

	// FromHost reports that endpoints take the server name from each connection.
	FromHost bool
}

const (
	refreshDefault = time.Minute
	firstRetry     = time.Second // delay after the first failed lookup
	longestRetry   = 15 * time.Second
)

// DNSStatus describes the lookups of an Upstream's endpoints.
type DNSStatus struct {
	Resolved time.Time // when a lookup last confirmed the endpoints; zero: never
	Next     time.Time // time of the next lookup, or zero
	Error    string    // error of the last lookup; "" if it succeeded. Printable, at most about 500 bytes.

	Lookups, Failed uint64 // number of lookups, and of failed ones
}

// A discovery updates the endpoints of one Upstream from DNS, on its own
// goroutine.
type discovery struct {
	upstream *Upstream
	options  DNSOptions
	pause    backoff

	applying sync.Mutex // held while an answer replaces the endpoints
	members  map[member]*Endpoint

	first chan struct{} // closed after the first lookup, successful or not

	worker worker

	mu            sync.Mutex
	known         bool // first is closed
	next          time.Time
	err           error // error of the last lookup
	none          error // err as an error for callers that find no endpoint
	asked, failed uint64
}

// A member identifies an address: a different member is a different endpoint.
type member struct {
	at   netip.AddrPort
	name string
}

// discover returns the discovery of a new Upstream, and the endpoints known
// from the previous revision.
func (u *Upstream) discover(o DNSOptions) (*discovery, []*Endpoint) {
	before := make(map[string]*Endpoint)
	if replaced := u.options.Replaces; replaced != nil {
		for _, e := range replaced.Endpoints() {
			before[e.Address()] = e
		}
	}
	d := &discovery{
		upstream: u, options: o, members: make(map[member]*Endpoint), first: make(chan struct{}),
		pause: backoff{first: firstRetry, most: longestRetry},
	}
	endpoints, _, _, _ := d.endpoints(o.Resolver.Last(), before)
	return d, endpoints
}

// endpoints returns the endpoints of an answer, existing and new ones. It
// reports which endpoints are new, and which only changed their share.
func (d *discovery) endpoints(a resolve.Answer, before map[string]*Endpoint) (all, added []*Endpoint, sharesChanged bool, err error) {
	members := make(map[member]*Endpoint, len(a.Addresses))
	for _, addr := range a.Addresses {
		m := member{addr.At, addr.Name}
		e := d.members[m]
		if e != nil {
			sharesChanged = e.setShare(addr.Weight, addr.Backup) || sharesChanged
		} else {
			o, failure := d.options.Endpoint(addr, before[addr.At.String()])
			if failure != nil {
				err = cmp.Or(err, fmt.Errorf("%s: %w", addr.At, failure))
				continue
			}
			o.Weight, o.Backup = addr.Weight, addr.Backup
			e = d.upstream.newEndpoint(o)
			added = append(added, e)
		}
		members[m] = e
		all = append(all, e)
	}
	if len(all) > 0 {
		d.members = members
	}
	return all, added, sharesChanged, err
}

// start starts the lookups.
func (d *discovery) start() {
	ctx, ok := d.worker.begin()
	if !ok {
		return
	}
	// Another revision may have a newer answer than New saw.
	last := d.options.Resolver.Last()
	_ = d.apply(last)
	d.mu.Lock()
	if len(last.Addresses) > 0 {
		d.releaseWaiters()
	}
	if !last.Time.IsZero() {
		d.next = last.Time.Add(d.interval(last))
	}
	d.mu.Unlock()
	d.worker.run(ctx, d.upstream.log, "asking DNS", d.run)
}

// adopt applies the last answer of another process, unless this one has an answer: if DNS
// fails now, traffic continues as in that process.
func (d *discovery) adopt(a resolve.Answer) {
	if len(a.Addresses) == 0 {
		return
	}
	d.options.Resolver.Adopt(a)
	_ = d.apply(d.options.Resolver.Last())
	d.mu.Lock()
	d.releaseWaiters()
	d.mu.Unlock()
}

// stop stops the lookups for good and returns when the goroutine has ended.
func (d *discovery) stop() {
	d.worker.end()
	d.worker.wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = time.Time{}
	d.releaseWaiters()
}

// releaseWaiters releases the callers that wait for the first answer. d.mu is held.
func (d *discovery) releaseWaiters() {
	if !d.known {
		d.known = true
		close(d.first)
	}
}

func (d *discovery) run(ctx context.Context) {
	d.mu.Lock()
	timer := time.NewTimer(time.Until(d.next))
	d.mu.Unlock()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		answer, err := d.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		timer.Reset(time.Until(d.applyResult(answer, err)))
	}
}

// ask does one lookup. A panic counts as a failed lookup.
func (d *discovery) ask(ctx context.Context) (answer resolve.Answer, err error) {
	if panicked := protect(d.upstream.log, "asking DNS", func() { answer, err = d.options.Resolver.Ask(ctx) }); panicked != nil {
		return resolve.Answer{}, panicked
	}
	return answer, err
}

// interval returns the time until the next lookup. The jitter prevents
// upstreams that started together from querying together.
func (d *discovery) interval(a resolve.Answer) time.Duration {
	every := cmp.Or(d.options.Refresh, a.TTL, refreshDefault)
	return every + rand.N(every/10+1)
}

// applyResult applies the result of a lookup, and returns when the next is due.
func (d *discovery) applyResult(a resolve.Answer, err error) time.Time {
	err = cmp.Or(err, d.apply(a))
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	failing := d.err != nil
	d.err, d.none = nil, nil
	log := d.upstream.log
	if err != nil {
		d.failed++
		d.pause.grow(now)
		d.next = d.pause.until
		if panicked, ok := errors.AsType[*resolve.PanicError](err); ok {
			log.Error("panic recovered", "in", "asking DNS", "error", panicked.Error(), "stack", string(panicked.Stack))
		}
		d.err, d.none = err, fmt.Errorf("%w: %w", ErrNoEndpoint, err)
		if !failing {
			log.Warn("DNS lookup failed; keeping the current endpoints", "reason", string(certs.Classify(err)), "error", printable(err.Error()), "endpoints", len(d.upstream.Endpoints()))
		}
	} else {
		d.pause.clear()
		d.next = now.Add(d.interval(a))
		if failing {
			log.Info("DNS lookup succeeds again", "endpoints", len(d.upstream.Endpoints()))
		}
	}
	d.releaseWaiters()
	return d.next
}

// apply replaces the endpoints with those of the answer. An answer without
// addresses changes nothing.
func (d *discovery) apply(a resolve.Answer) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	before := len(d.members)
	all, added, sharesChanged, err := d.endpoints(a, nil)
	if len(all) == 0 || len(added) == 0 && len(all) == before && !sharesChanged {
		return err
	}
	u := d.upstream
	removed := u.replace(all)
	if len(added)+len(removed) > 0 {
		message := changes(added, removed)
		u.log.Info("endpoints changed", "added", len(added), "removed", len(removed), "endpoints", len(all))
		u.notify(Event{Kind: EndpointsChanged, Message: message})
	}
	for _, e := range removed {
		e.wait()
	}
	return err
}

// changes lists new and former endpoints: "10.0.0.2:443 added,
// 10.0.0.1:443 removed".
func changes(added, removed []*Endpoint) string {
	var parts []string
	for _, c := range []struct {
		endpoints []*Endpoint
		change    string
	}{{added, "added"}, {removed, "removed"}} {
		const most = 5
		var names []string
		for i, e := range c.endpoints {
			if i == most {
				names = append(names, fmt.Sprintf("and %d more", len(c.endpoints)-most))
				break
			}
			names = append(names, e.Address())
		}
		if len(names) > 0 {
			parts = append(parts, strings.Join(names, " ")+" "+c.change)
		}
	}
	return strings.Join(parts, ", ")
}

// await waits for the first lookup to complete, for at most the connect
// timeout.
func (d *discovery) await(wait func() (ctx context.Context, done func())) {
	select {
	case <-d.first:
		return
	default:
	}
	if wait == nil {
		return
	}
	ctx, done := wait()
	defer done()
	ctx, cancel := context.WithTimeout(ctx, d.upstream.options.ConnectTimeout)
	defer cancel()
	select {
	case <-d.first:
	case <-ctx.Done():
	}
}

// failure returns the error for a missing endpoint. It wraps ErrNoEndpoint.
func (d *discovery) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.none == nil && !d.known {
		return errNotResolved
	}
	return cmp.Or(d.none, ErrNoEndpoint)
}

// errNotResolved is the failure before the first answer.
var errNotResolved = fmt.Errorf("%w: %w", ErrNoEndpoint, &net.DNSError{Err: "there is no answer yet", IsTimeout: true, IsTemporary: true})

func (d *discovery) status() *DNSStatus {
	if d == nil {
		return nil
	}
	last := d.options.Resolver.Last()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &DNSStatus{Resolved: last.Time, Next: d.next, Lookups: d.asked, Failed: d.failed}
	if d.err != nil {
		s.Error = printable(d.err.Error())
	}
	return s
}
