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

// A Resolver says which addresses an Upstream has: a *resolve.Name. The revisions
// of an upstream that ask the same share it, so that none begins without an answer
// that the one before had.
type Resolver interface {
	Ask(context.Context) (resolve.Answer, error)
	Last() resolve.Answer
}

// DNSOptions say where the endpoints of an Upstream come from, in place of
// Options.Endpoints.
type DNSOptions struct {
	Resolver Resolver
	Refresh  time.Duration // between two questions; 0: by the answers' time to live, and 1min where there is none

	// Endpoint returns the options of the endpoint at an address. Weight and Backup
	// are those of the address. Before is the one that Options.Replaces had there;
	// nil if it had none.
	Endpoint func(a resolve.Address, before *Endpoint) (EndpointOptions, error)

	// FromHost says that the endpoints take the server name from each connection.
	FromHost bool
}

const (
	refreshDefault = time.Minute
	firstRetry     = time.Second // after an answer that did not come
	longestRetry   = 15 * time.Second
)

// DNSStatus is what became of asking for an Upstream's endpoints.
type DNSStatus struct {
	Resolved time.Time // when the endpoints were last confirmed; zero: never
	Next     time.Time // when they are asked for next; zero: they are not
	Error    string    // why the last question was not answered; "" if it was. Printable, at most about 500 bytes.

	Asked, Failed uint64 // questions, and those of them that were not answered
}

// A discovery has the endpoints of one Upstream follow what DNS says. From start to
// end a goroutine of its own asks, again and again.
type discovery struct {
	upstream *Upstream
	options  DNSOptions
	pause    backoff

	// Of whoever applies answers: New, then start, then the goroutine.
	members map[member]*Endpoint

	first chan struct{} // closed once there is an answer, or there was none

	worker worker

	mu            sync.Mutex
	known         bool // first is closed
	next          time.Time
	err           error // of the last question
	none          error // the same for who finds no endpoint because of it
	asked, failed uint64
}

// A member is an address by what makes it another endpoint if it changes.
type member struct {
	at   netip.AddrPort
	name string
}

// discover returns the discovery of a new Upstream, and the endpoints that are
// known from before.
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

// endpoints returns the endpoints of an answer: those that there are already, and
// new ones. It says which have come and which are the same with another share.
func (d *discovery) endpoints(a resolve.Answer, before map[string]*Endpoint) (all, came []*Endpoint, shifted bool, err error) {
	members := make(map[member]*Endpoint, len(a.Addresses))
	for _, addr := range a.Addresses {
		m := member{addr.At, addr.Name}
		e := d.members[m]
		if e != nil {
			shifted = e.setShare(addr.Weight, addr.Backup) || shifted
		} else {
			o, failure := d.options.Endpoint(addr, before[addr.At.String()])
			if failure != nil {
				err = cmp.Or(err, fmt.Errorf("%s: %w", addr.At, failure))
				continue
			}
			o.Weight, o.Backup = addr.Weight, addr.Backup
			e = d.upstream.newEndpoint(o)
			came = append(came, e)
		}
		members[m] = e
		all = append(all, e)
	}
	if len(all) > 0 {
		d.members = members
	}
	return all, came, shifted, err
}

// start begins to ask.
func (d *discovery) start() {
	ctx, ok := d.worker.begin()
	if !ok {
		return
	}
	// What another revision has learnt since New.
	last := d.options.Resolver.Last()
	_ = d.apply(last)
	d.mu.Lock()
	if len(last.Addresses) > 0 {
		d.know()
	}
	if !last.Time.IsZero() {
		d.next = last.Time.Add(d.interval(last))
	}
	d.mu.Unlock()
	d.worker.run(ctx, d.upstream.log, "asking DNS", d.run)
}

// stop ends the asking, for good, and returns when it has ended.
func (d *discovery) stop() {
	d.worker.end()
	d.worker.wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = time.Time{}
	d.know() // whoever waits waits in vain
}

// know lets go on who waits for the first answer. d.mu is held.
func (d *discovery) know() {
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
		timer.Reset(time.Until(d.learn(answer, err)))
	}
}

// ask asks once. A panic counts as no answer.
func (d *discovery) ask(ctx context.Context) (answer resolve.Answer, err error) {
	if panicked := protect(d.upstream.log, "asking DNS", func() { answer, err = d.options.Resolver.Ask(ctx) }); panicked != nil {
		return resolve.Answer{}, panicked
	}
	return answer, err
}

// interval returns how long after an answer it is asked for again. The jitter keeps
// those who began together from asking together.
func (d *discovery) interval(a resolve.Answer) time.Duration {
	every := cmp.Or(d.options.Refresh, a.TTL, refreshDefault)
	return every + rand.N(every/10+1)
}

// learn takes in what a question came to, and returns when the next is due.
func (d *discovery) learn(a resolve.Answer, err error) time.Time {
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
		d.pause.strike(now)
		d.next = d.pause.until
		if panicked, ok := errors.AsType[*resolve.PanicError](err); ok {
			log.Error("panic recovered", "in", "asking DNS", "error", panicked.Error(), "stack", string(panicked.Stack))
		}
		d.err, d.none = err, fmt.Errorf("%w: %w", ErrNoEndpoint, err)
		if !failing {
			log.Warn("DNS does not tell the endpoints: they stay what they are", "reason", string(certs.Classify(err)), "error", printable(err.Error()), "endpoints", len(d.members))
		}
	} else {
		d.pause.clear()
		d.next = now.Add(d.interval(a))
		if failing {
			log.Info("DNS tells the endpoints again", "endpoints", len(d.members))
		}
	}
	d.know()
	return d.next
}

// apply makes an answer's addresses the endpoints. One without any changes
// nothing.
func (d *discovery) apply(a resolve.Answer) error {
	before := len(d.members)
	all, came, shifted, err := d.endpoints(a, nil)
	if len(all) == 0 || len(came) == 0 && len(all) == before && !shifted {
		return err
	}
	u := d.upstream
	left := u.replace(all)
	if len(came)+len(left) > 0 {
		message := changes(came, left)
		u.log.Info("endpoints changed", "came", len(came), "left", len(left), "endpoints", len(all))
		u.tell(Event{Kind: EndpointsChanged, Message: message})
	}
	for _, e := range left {
		e.wait()
	}
	return err
}

// changes says which endpoints have come and which are gone: "10.0.0.2:443 came,
// 10.0.0.1:443 left".
func changes(came, left []*Endpoint) string {
	var parts []string
	for _, c := range []struct {
		endpoints []*Endpoint
		what      string
	}{{came, "came"}, {left, "left"}} {
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
			parts = append(parts, strings.Join(names, " ")+" "+c.what)
		}
	}
	return strings.Join(parts, ", ")
}

// await waits for the first answer, if there was neither that nor a failure yet,
// for as long as a connection may take.
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

// failure returns why there is no endpoint. It wraps ErrNoEndpoint.
func (d *discovery) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.none == nil && !d.known {
		return errNotResolved
	}
	return cmp.Or(d.none, ErrNoEndpoint)
}

// errNotResolved is what is wrong while there was no answer yet.
var errNotResolved = fmt.Errorf("%w: %w", ErrNoEndpoint, &net.DNSError{Err: "there is no answer yet", IsTimeout: true, IsTemporary: true})

func (d *discovery) status() *DNSStatus {
	if d == nil {
		return nil
	}
	last := d.options.Resolver.Last()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &DNSStatus{Resolved: last.Time, Next: d.next, Asked: d.asked, Failed: d.failed}
	if d.err != nil {
		s.Error = printable(d.err.Error())
	}
	return s
}
