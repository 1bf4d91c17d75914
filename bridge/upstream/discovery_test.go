package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A names is a Resolver with answers set by a test.
type names struct {
	mu     sync.Mutex
	answer resolve.Answer
	ttl    time.Duration
	found  []resolve.Address
	err    error
	times  []time.Time   // times of the lookups
	slow   chan struct{} // if not nil, answers wait until it is closed
}

func (n *names) Last() resolve.Answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.answer
}

func (n *names) Adopt(a resolve.Answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.answer.Addresses) == 0 {
		n.answer = a
	}
}

func (n *names) Ask(ctx context.Context) (resolve.Answer, error) {
	n.mu.Lock()
	n.times = append(n.times, time.Now())
	slow := n.slow
	n.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return n.Last(), ctx.Err()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.answer = resolve.Answer{Addresses: n.found, TTL: n.ttl, Time: time.Now()}
	}
	return n.answer, n.err
}

// say sets the answer to addresses, such as "10.0.0.1:80", with a weight as
// "10.0.0.1:80*5", or with an exclamation mark for a backup.
func (n *names) say(addresses ...string) {
	var all []resolve.Address
	for _, a := range addresses {
		x := resolve.Address{Name: "web.test", Weight: 1}
		a, x.Backup = strings.CutSuffix(a, "!")
		a, weight, ok := strings.Cut(a, "*")
		if ok {
			fmt.Sscan(weight, &x.Weight)
		}
		x.At = netip.MustParseAddrPort(a)
		all = append(all, x)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.found, n.err = all, nil
}

func (n *names) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

// waits returns the times between lookups.
func (n *names) waits() (out []time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := 1; i < len(n.times); i++ {
		out = append(out, n.times[i].Sub(n.times[i-1]))
	}
	return out
}

// byDNS returns an upstream with plaintext endpoints from DNS.
func byDNS(n *names, change ...func(*upstream.Options)) *upstream.Upstream {
	o := upstream.Options{Name: "u", ConnectTimeout: 5 * time.Second, DNS: &upstream.DNSOptions{
		Resolver: n,
		Endpoint: func(a resolve.Address, before *upstream.Endpoint) (upstream.EndpointOptions, error) {
			return upstream.EndpointOptions{Network: "tcp", Address: a.At.String(), Authority: a.Name + ":80"}, nil
		},
	}}
	for _, c := range change {
		c(&o)
	}
	return upstream.New(o)
}

// pass lets time pass and runs all due work. It must be called under synctest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var errNXDomain = &net.DNSError{Err: "no such host", Name: "web.test", IsNotFound: true}

func present(u *upstream.Upstream) string { return addresses(u.Endpoints()) }

func addresses(endpoints []*upstream.Endpoint) string {
	var all []string
	for _, e := range endpoints {
		all = append(all, e.Address())
	}
	return strings.Join(all, " ")
}

// rest returns the endpoints that a Turn can still use.
func rest(t *testing.T, turn *upstream.Turn) (all []*upstream.Endpoint) {
	for {
		e, err := turn.Next(nil)
		if err != nil {
			if err != upstream.ErrNoEndpoint {
				t.Error(err)
			}
			return all
		}
		all = append(all, e)
	}
}

func TestDNSIsQueriedAgainWhenItsAnswerExpires(t *testing.T) {
	for _, test := range []struct {
		name                  string
		ttl, refresh, atLeast time.Duration
	}{
		{"by the time to live", 30 * time.Second, 0, 30 * time.Second},
		{"by the refresh", 30 * time.Second, 10 * time.Second, 10 * time.Second},
		{"by neither", 0, 0, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &names{ttl: test.ttl}
				n.say("10.0.0.1:80")
				u := byDNS(n, func(o *upstream.Options) { o.DNS.Refresh = test.refresh })
				if present(u) != "" || u.DNS().Lookups != 0 {
					t.Errorf("before the start there is %q", present(u))
				}
				u.Start()
				u.Start()
				defer u.Retire()
				pass(20 * test.atLeast)
				waits := n.waits()
				if len(waits) < 17 || len(waits) > 20 {
					t.Errorf("%d questions", len(waits)+1)
				}
				for _, w := range waits {
					if w < test.atLeast || w > test.atLeast*11/10+1 {
						t.Errorf("after %v", w)
					}
				}
				if len(slices.Compact(slices.Sorted(slices.Values(waits)))) < 2 {
					t.Error("without jitter")
				}
				if s := u.DNS(); s.Lookups != uint64(len(waits)+1) || s.Failed != 0 || s.Error != "" || !s.Next.After(time.Now()) || s.Resolved.IsZero() {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

func TestADNSFailureKeepsTheEndpointsAndIsRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{ttl: time.Hour}
		n.fail(errNXDomain)
		u := byDNS(n)
		u.Start()
		defer u.Retire()
		pass(10 * time.Minute)
		waits := n.waits()
		for i, w := range waits {
			if pause := min(time.Second<<i, 15*time.Second); i < 10 && (w < pause/2 || w > pause*3/2) || w > 15*time.Second*3/2 {
				t.Errorf("%d: pause of %v", i, w)
			}
		}
		if s := u.DNS(); s.Failed != uint64(len(waits)+1) || s.Error != "lookup web.test: no such host" || !s.Resolved.IsZero() {
			t.Errorf("status %+v", s)
		}
		_, _, err := u.Dial(t.Context(), upstream.Stream)
		if !errors.Is(err, upstream.ErrNoEndpoint) || certs.Classify(err) != certs.ReasonDNSFailure {
			t.Errorf("%v", err)
		}

		n.say("10.0.0.1:80", "10.0.0.2:80")
		pass(time.Minute)
		before := u.Endpoints()
		if present(u) != "10.0.0.1:80 10.0.0.2:80" || u.DNS().Error != "" {
			t.Errorf("then %s", present(u))
		}
		n.fail(&net.DNSError{Err: "server misbehaving\n\x1b[31m" + strings.Repeat("x", 5000), Name: "web.test", IsTemporary: true})
		pass(2 * time.Hour)
		if !slices.Equal(u.Endpoints(), before) {
			t.Errorf("the endpoints after a failure: %s", present(u))
		}
		s := u.DNS()
		if s.Error == "" || len(s.Error) > 600 || strings.ContainsAny(s.Error, "\n\x1b") || time.Since(s.Resolved) < time.Hour {
			t.Errorf("status %+v", s)
		}
	})
}

func TestEndpointsThatStayKeepTheirState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{ttl: time.Second}
		var events []upstream.Event
		n.say("10.0.0.1:80", "10.0.0.2:80*3", "10.0.0.3:80")
		u := byDNS(n, func(o *upstream.Options) { o.Observer = func(e upstream.Event) { events = append(events, e) } })
		var left []*upstream.Endpoint
		u.NotifyLeft(func(e *upstream.Endpoint) {
			if !e.Left() || !e.Draining() {
				t.Errorf("%s has left, but Left returns false", e.Address())
			}
			left = append(left, e)
		})
		u.Start()
		defer u.Retire()
		synctest.Wait()
		first := u.Endpoints()

		n.say("10.0.0.2:80", "10.0.0.3:80!", "10.0.0.4:80")
		pass(2 * time.Second)
		second := u.Endpoints()
		if present(u) != "10.0.0.2:80 10.0.0.3:80 10.0.0.4:80" || second[0] != first[1] || second[1] != first[2] {
			t.Errorf("%s, the same: %v %v", present(u), second[0] == first[1], second[1] == first[2])
		}
		if !slices.Equal(left, first[:1]) {
			t.Errorf("left: %s", addresses(left))
		}
		if !second[1].Backup() || second[0].Backup() {
			t.Error("the set of backups has not changed")
		}
		var turns []string
		for range 4 {
			var turn upstream.Turn
			turn.Begin(u, upstream.Key{})
			turns = append(turns, addresses(rest(t, &turn)))
			turn.End()
		}
		// The backup is last, and the others have equal shares.
		want := []string{"10.0.0.2:80 10.0.0.4:80 10.0.0.3:80", "10.0.0.4:80 10.0.0.2:80 10.0.0.3:80"}
		if !slices.Equal(turns[:2], want) || !slices.Equal(turns[2:], want) {
			t.Errorf("turns %q", turns)
		}

		n.say("10.0.0.2:80", "10.0.0.3:80!", "10.0.0.4:80") // the same addresses in another slice
		events = events[:0]
		pass(10 * time.Second)
		if !slices.Equal(u.Endpoints(), second) || len(events) != 0 {
			t.Errorf("the same answer changed the endpoints, events %+v", events)
		}

		n.say("10.0.0.1:80")
		pass(2 * time.Second)
		if e := u.Endpoints(); len(e) != 1 || e[0] == first[0] {
			t.Errorf("an endpoint that returns is the object that left: %s", present(u))
		}
		if len(events) != 1 || events[0].Kind != upstream.EndpointsChanged || events[0].Upstream != "u" || events[0].Endpoint != "" ||
			events[0].Message != "10.0.0.1:80 added, 10.0.0.2:80 10.0.0.3:80 10.0.0.4:80 removed" {
			t.Errorf("events %+v", events)
		}
		// For a while, the status lists endpoints that have left. Then it drops those
		// without connections.
		if s := u.Status(); len(s) != 5 || s[0].Left || !s[1].Left || !s[1].Draining {
			t.Errorf("status %+v", s)
		}
		pass(time.Minute)
		if s := u.Status(); len(s) != 1 {
			t.Errorf("then status %+v", s)
		}
	})
}

func TestAnotherNameAtTheSameAddressIsAnotherEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{ttl: time.Second}
		n.say("10.0.0.1:80")
		u := byDNS(n)
		u.Start()
		defer u.Retire()
		synctest.Wait()
		before := u.Endpoints()[0]
		n.say("10.0.0.1:80")
		n.mu.Lock()
		n.found[0].Name = "other.test"
		n.mu.Unlock()
		pass(2 * time.Second)
		after := u.Endpoints()[0]
		if after == before || after.Authority() != "other.test:80" || after.Address() != "10.0.0.1:80" {
			t.Errorf("%s is called %s", after.Address(), after.Authority())
		}
	})
}

func TestTurnsWaitForTheFirstAnswerForAtMostTheConnectTimeout(t *testing.T) {
	wait := func(ctx context.Context) func() (context.Context, func()) {
		return func() (context.Context, func()) { return ctx, func() {} }
	}
	next := func(u *upstream.Upstream, wait func() (context.Context, func())) (string, error) {
		var turn upstream.Turn
		turn.Begin(u, upstream.Key{})
		defer turn.End()
		e, err := turn.Next(wait)
		if err != nil {
			return "", err
		}
		return e.Address(), nil
	}
	for _, test := range []struct {
		name  string
		after time.Duration // time until the answer
		err   error
		takes time.Duration
		want  string
	}{
		{"an answer in time", 3 * time.Second, nil, 3 * time.Second, "10.0.0.1:80"},
		{"a late answer", 7 * time.Second, nil, 5 * time.Second, ""},
		{"a failure", 2 * time.Second, errNXDomain, 2 * time.Second, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &names{ttl: time.Minute, slow: make(chan struct{})}
				n.say("10.0.0.1:80")
				n.fail(test.err)
				time.AfterFunc(test.after, func() { close(n.slow) })
				u := byDNS(n)
				u.Start()
				defer u.Retire()
				if _, err := next(u, nil); !errors.Is(err, upstream.ErrNoEndpoint) || certs.Classify(err) != certs.ReasonDNSFailure {
					t.Errorf("a caller that does not wait: %v", err)
				}
				start := time.Now()
				got, err := next(u, wait(t.Context()))
				if took := time.Since(start); got != test.want || took != test.takes {
					t.Errorf("%q after %v: %v", got, took, err)
				}
				if test.want == "" && (!errors.Is(err, upstream.ErrNoEndpoint) || certs.Classify(err) != certs.ReasonDNSFailure) {
					t.Errorf("%v", err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start = time.Now()
				next(u, wait(ctx))
				if took := time.Since(start); took > time.Second {
					t.Errorf("a caller whose context ended waits for %v", took)
				}
			})
		})
	}
}

func TestATurnContinuesWithNewEndpointsAfterAllWereReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{ttl: time.Second}
		n.say("10.0.0.1:80", "10.0.0.2:80")
		u := byDNS(n)
		u.Start()
		defer u.Retire()
		synctest.Wait()
		var turn upstream.Turn
		turn.Begin(u, upstream.Key{})
		defer turn.End()
		if e, err := turn.Next(nil); err != nil || e.Address() != "10.0.0.1:80" {
			t.Fatalf("%v, %v", e, err)
		}
		n.say("10.0.0.1:80", "10.0.0.3:80")
		pass(2 * time.Second)
		// Tried endpoints are not tried again, and endpoints that left are never
		// tried.
		if got := addresses(rest(t, &turn)); got != "10.0.0.3:80" {
			t.Errorf("the next endpoint is %s", got)
		}
	})
}

// When the configuration changes, there is no moment without endpoints, and no
// lookup for each revision.
func TestEachRevisionStartsWithTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{ttl: time.Minute}
		n.say("10.0.0.1:80")
		before := byDNS(n)
		before.Start()
		synctest.Wait()
		pass(30 * time.Second)
		var replaced []*upstream.Endpoint
		after := byDNS(n, func(o *upstream.Options) {
			o.Replaces = before
			make := o.DNS.Endpoint
			o.DNS.Endpoint = func(a resolve.Address, old *upstream.Endpoint) (upstream.EndpointOptions, error) {
				replaced = append(replaced, old)
				return make(a, old)
			}
		})
		if present(after) != "10.0.0.1:80" || !slices.Equal(replaced, before.Endpoints()) {
			t.Errorf("the revision begins with %q", present(after))
		}
		after.Start()
		before.Retire()
		defer after.Retire()
		n.say("10.0.0.1:80", "10.0.0.2:80")
		pass(29 * time.Second)
		if len(n.waits()) != 0 {
			t.Error("the revision made a lookup at once")
		}
		pass(10 * time.Second)
		if present(after) != "10.0.0.1:80 10.0.0.2:80" || len(replaced) != 2 || replaced[1] != nil {
			t.Errorf("then %q", present(after))
		}

		// An answer between New and Start is not lost.
		third := byDNS(n)
		n.say("10.0.0.9:80")
		pass(2 * time.Minute)
		third.Start()
		defer third.Retire()
		if present(third) != "10.0.0.9:80" {
			t.Errorf("the third begins with %q", present(third))
		}
	})
}

func TestAnAddressWithoutAValidEndpointIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{ttl: time.Second}
		n.say("10.0.0.1:80", "10.0.0.2:80")
		u := byDNS(n, func(o *upstream.Options) {
			o.DNS.Endpoint = func(a resolve.Address, _ *upstream.Endpoint) (upstream.EndpointOptions, error) {
				if a.At.Addr().String() == "10.0.0.2" {
					return upstream.EndpointOptions{}, errors.New("no name to verify")
				}
				return upstream.EndpointOptions{Network: "tcp", Address: a.At.String()}, nil
			}
		})
		u.Start()
		defer u.Retire()
		synctest.Wait()
		if s := u.DNS(); present(u) != "10.0.0.1:80" || s.Error != "10.0.0.2:80: no name to verify" || s.Failed != 1 {
			t.Errorf("%s, status %+v", present(u), s)
		}
	})
}

func TestRetireEndsAPendingLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{slow: make(chan struct{})}
		u := byDNS(n)
		u.Start()
		synctest.Wait()
		waited := make(chan error, 1)
		go func() {
			_, _, err := u.Dial(t.Context(), upstream.Stream)
			waited <- err
		}()
		synctest.Wait()
		u.Retire()
		if err := <-waited; !errors.Is(err, upstream.ErrNoEndpoint) {
			t.Error(err)
		}
		u.Start()
		u.Retire()
	})
}

// When an endpoint leaves, its open connections continue and its warm
// connections are closed. A new endpoint gets warm connections.
func TestConnectionsOfAnEndpointThatLeavesContinue(t *testing.T) {
	one, two := newWarmServer(t, nil), newWarmServer(t, nil)
	n := &names{}
	n.say(one.addr)
	tracker := upstream.NewTracker()
	clients := map[string]certs.ClientOptions{one.addr: one.client(t), two.addr: two.client(t)}
	u := start(t, byDNS(n, func(o *upstream.Options) {
		o.Tracker, o.Warm, o.DNS.Refresh = tracker, 2, time.Millisecond
		o.DNS.Endpoint = func(a resolve.Address, _ *upstream.Endpoint) (upstream.EndpointOptions, error) {
			c, err := certs.NewClient(clients[a.At.String()])
			return upstream.EndpointOptions{Network: "tcp", Address: a.At.String(), Stream: c}, err
		}
	}))
	eventually(t, "there is an endpoint", func() bool { return present(u) == one.addr })
	ready(t, u, 2)
	conn := stream(t, u)
	if err := echoed(conn, "before"); err != nil {
		t.Fatal(err)
	}
	first := u.Endpoints()[0]
	n.say(two.addr)
	eventually(t, "the endpoint has left", first.Left)
	eventually(t, "only its connection in use is left", func() bool { return one.open() == 1 })
	// The server sees a connection end before the upstream has counted its end.
	eventually(t, "the upstream no longer counts the others", func() bool { s := u.Status(); return len(s) == 2 && s[1].Open == 1 })
	eventually(t, "the new endpoint has warm connections", func() bool { return u.Status()[0].Warm.Ready == 2 })
	if err := echoed(conn, "after"); err != nil {
		t.Error(err)
	}
	if s := u.Status(); len(s) != 2 || s[0].Address != two.addr || s[1].Of != first || !s[1].Left || s[1].Open != 1 {
		t.Errorf("status %+v", s)
	}
	if n := tracker.Drain("", true, time.Minute); n != 3 {
		t.Errorf("%d connections are drained", n)
	}
	another, e, err := u.Dial(t.Context(), upstream.Stream)
	if err != nil || e.Address() != two.addr {
		t.Fatalf("%v, %v", e, err)
	}
	another.Close()
}
