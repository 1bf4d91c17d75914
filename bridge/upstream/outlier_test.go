package upstream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// withDetection returns an upstream with outlier detection.
func withDetection(o upstream.OutlierOptions, change func(*upstream.Options), addresses ...string) *upstream.Upstream {
	if o.MaxPercent == 0 {
		o.MaxPercent = 50
	}
	options := upstream.Options{Name: "up", Outliers: &o}
	for _, a := range addresses {
		options.Endpoints = append(options.Endpoints, endpoint(a, 1))
	}
	if change != nil {
		change(&options)
	}
	return upstream.New(options)
}

// results records the outcomes of requests at an endpoint: "+" is a success.
func results(e *upstream.Endpoint, ended string) {
	for _, r := range ended {
		e.NoteResult(r == '+')
	}
}

// ejection returns the remaining time of the endpoint's ejection.
func ejection(u *upstream.Upstream, i int) time.Duration {
	if until := u.Status()[i].EjectedUntil; !until.IsZero() {
		return time.Until(until)
	}
	return 0
}

// about reports whether d is most, or up to a tenth less.
func about(d, most time.Duration) bool { return d <= most && d >= most-most/10 }

func TestFailuresInARowEject(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var w eventRecorder
		u := live(withDetection(upstream.OutlierOptions{Failures: 3}, func(o *upstream.Options) { o.Observer = w.observe }, "a:1", "b:1"))
		a := u.Endpoints()[0]
		results(a, "--+--+-+--")
		wantChoices(t, u, "never three in a row", "a:1 b:1")
		w.want(t, "so far")
		results(a, "-")
		wantChoices(t, u, "three in a row", "b:1")
		w.want(t, "then", "ejected unknown - 0")
		s := u.Status()[0]
		if d := ejection(u, 0); s.Available || s.Ejections != 1 || !about(d, 30*time.Second) ||
			s.Unavailable != "ejected until "+s.EjectedUntil.UTC().Format(time.RFC3339)+": 3 failures in a row" {
			t.Errorf("for %v: %+v", d, s)
		}

		// Results of requests that started before the ejection are ignored. The
		// endpoint returns when the ejection's time has passed, and an Event reports
		// that, even without traffic.
		results(a, "----------")
		time.Sleep(27*time.Second - 1)
		wantChoices(t, u, "before its time", "b:1")
		w.want(t, "before its time")
		time.Sleep(3*time.Second + 1)
		synctest.Wait()
		w.want(t, "after its time", "returned unknown - 0")
		wantChoices(t, u, "after its time", "a:1 b:1")
		if s := u.Status()[0]; !s.Available || s.Ejections != 1 || !s.EjectedUntil.IsZero() {
			t.Errorf("%+v", s)
		}
		results(a, "--")
		wantChoices(t, u, "counting starts from zero", "a:1 b:1")
	})
}

// Each ejection soon after the previous one is twice as long, up to a bound.
// The length is reset once the endpoint has worked for as long.
func TestEjectionsBackOff(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		u := live(withDetection(upstream.OutlierOptions{Failures: 2, Base: 10 * time.Second, Max: time.Minute}, nil, "a:1", "b:1"))
		a := u.Endpoints()[0]
		eject := func(want time.Duration) time.Duration {
			t.Helper()
			results(a, "--")
			d := ejection(u, 0)
			if !about(d, want) {
				t.Errorf("ejected for %v, want about %v", d, want)
			}
			time.Sleep(d)
			synctest.Wait()
			return d
		}
		for _, want := range []time.Duration{10, 20, 40, 60, 60} {
			eject(want * time.Second)
			time.Sleep(time.Second)
			results(a, "++++")
		}
		last := eject(time.Minute)
		time.Sleep(last - 1)
		last = eject(time.Minute)
		time.Sleep(last)
		eject(10 * time.Second)
		eject(20 * time.Second)
		if n := u.Status()[0].Ejections; n != 9 {
			t.Errorf("%d ejections", n)
		}
	})
}

func TestEjectionsHaveJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 20 {
			u := withDetection(upstream.OutlierOptions{Failures: 1}, nil, "a:1", "b:1")
			results(u.Endpoints()[0], "-")
			seen[ejection(u, 0)] = true
			u.Retire()
		}
		if len(seen) < 15 {
			t.Errorf("20 ejections are of %d lengths", len(seen))
		}
	})
}

func TestTheErrorRateEjects(t *testing.T) {
	for _, test := range []struct {
		name    string
		ended   func(e *upstream.Endpoint)
		ejected bool
	}{
		{"ten failures of twenty", func(e *upstream.Endpoint) { results(e, "++++++++++----------") }, true},
		{"ten failures of nineteen, which are too few results", func(e *upstream.Endpoint) { results(e, "+++++++++----------") }, false},
		{"less than half of the results", func(e *upstream.Endpoint) { results(e, "+++++++++++---------") }, false},
		{"failures spread over the window", func(e *upstream.Endpoint) {
			for range 10 {
				results(e, "+-")
				time.Sleep(900 * time.Millisecond)
			}
		}, true},
		{"failures spread over a longer time", func(e *upstream.Endpoint) {
			for range 10 {
				results(e, "+-")
				time.Sleep(1200 * time.Millisecond)
			}
		}, false},
		{"after successes before the window", func(e *upstream.Endpoint) {
			for range 1000 {
				results(e, "+")
			}
			time.Sleep(11 * time.Second)
			results(e, "++++++++++----------")
		}, true},
		{"after successes in the window", func(e *upstream.Endpoint) {
			for range 1000 {
				results(e, "+")
			}
			time.Sleep(5 * time.Second)
			results(e, "----------")
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
				u := live(withDetection(upstream.OutlierOptions{Percent: 50}, nil, "a:1", "b:1"))
				test.ended(u.Endpoints()[0])
				if got := ejection(u, 0) > 0; got != test.ejected {
					t.Errorf("ejected: %v", got)
				}
				if test.ejected && !strings.Contains(u.Status()[0].Unavailable, "of 20 attempts failed within 10s") {
					t.Errorf("because %s", u.Status()[0].Unavailable)
				}
			})
		})
	}
}

// Handshakes have their own rule, and count by reason if configured.
func TestFailedHandshakesEject(t *testing.T) {
	ca, other := "UNKNOWN_CA", "EXPIRED"
	fail := func(reason string) error { return &certs.VerifyError{Reason: certs.Reason(reason), Detail: reason} }
	for _, test := range []struct {
		name    string
		options upstream.OutlierOptions
		reasons []string
		ejected bool
	}{
		{"two in a row", upstream.OutlierOptions{Handshakes: 2}, []string{ca, other}, true},
		{"one failed handshake", upstream.OutlierOptions{Handshakes: 2}, []string{ca}, false},
		{"failed handshakes count as failures", upstream.OutlierOptions{Failures: 2}, []string{ca, other}, true},
		{"reasons that are counted", upstream.OutlierOptions{Handshakes: 2, Reasons: []certs.Reason{"UNKNOWN_CA"}}, []string{ca, other, ca}, true},
		{"a reason that is not counted", upstream.OutlierOptions{Handshakes: 2, Failures: 2, Percent: 1, MinAttempts: 1, Reasons: []certs.Reason{"UNKNOWN_CA"}}, []string{other, other, other}, false},
		{"failures of our own configuration", upstream.OutlierOptions{Handshakes: 1, Failures: 1}, []string{"LOCAL_CONFIG", "LOCAL_CONFIG"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
				u := live(withDetection(test.options, nil, "a:1", "b:1"))
				for _, r := range test.reasons {
					upstream.NoteHandshakeFailure(u.Endpoints()[0], fail(r))
				}
				if got := ejection(u, 0) > 0; got != test.ejected {
					t.Errorf("ejected: %v", got)
				}
			})
		})
	}
}

// Requests for hosts that an endpoint does not serve cannot eject it, nor can
// a lack of descriptors.
func TestFailuresOfClientsDoNotEject(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		client := newClient(t, certs.ClientOptions{FromHost: true, Verification: certs.VerifyInsecureSkip})
		u := live(withDetection(upstream.OutlierOptions{Failures: 1, Handshakes: 1}, func(o *upstream.Options) {
			for i := range o.Endpoints {
				o.Endpoints[i].Stream, o.Endpoints[i].HTTP = client, client
			}
		}, "a:1", "b:1"))
		a := u.Endpoints()[0]
		for _, r := range []certs.Reason{certs.ReasonNameMismatch, certs.ReasonUnrecognizedName, certs.ReasonLocalConfig} {
			a.NoteFailure(&certs.VerifyError{Reason: r})
		}
		a.NoteFailure(syscall.EMFILE)
		if _, err := a.DialAs(t.Context(), upstream.HTTP, ""); err == nil {
			t.Error("a dial without a host succeeded")
		}
		wantChoices(t, u, "no ejection", "a:1 b:1")
		a.NoteFailure(&certs.VerifyError{Reason: certs.ReasonExpired})
		wantChoices(t, u, "after the ejection", "b:1")
	})
}

func TestDialsAreAttempts(t *testing.T) {
	addr := listen(t, "tcp", echoOn)
	gone := sockettest.Free(t)
	u := withDetection(upstream.OutlierOptions{Failures: 2}, nil, addr.String(), gone)
	defer u.Retire()
	bad := u.Endpoints()[1]
	for _, p := range []upstream.Purpose{upstream.Stream, upstream.HTTP} {
		if _, err := bad.DialAs(t.Context(), p, ""); err == nil {
			t.Fatal("the address has no listener")
		}
	}
	if s := u.Status()[1]; s.Available || !strings.Contains(s.Unavailable, "2 failures in a row") {
		t.Errorf("%+v", s)
	}

	// A stream counts as a success once it is connected, a request once it has
	// ended.
	for _, test := range []struct {
		purpose upstream.Purpose
		ejected bool
	}{{upstream.Stream, false}, {upstream.HTTP, true}} {
		u := withDetection(upstream.OutlierOptions{Failures: 2}, nil, addr.String(), gone)
		good := u.Endpoints()[0]
		for range 2 {
			conn, err := good.DialAs(t.Context(), test.purpose, "")
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			good.NoteResult(false)
		}
		if s := u.Status()[0]; s.Available == test.ejected {
			t.Errorf("purpose %v: %+v", test.purpose, s)
		}
		u.Retire()
	}
	// A cancellation proves nothing.
	u2 := withDetection(upstream.OutlierOptions{Failures: 1}, nil, gone, addr.String())
	defer u2.Retire()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	u2.Endpoints()[0].DialAs(ctx, upstream.Stream, "")
	if s := u2.Status()[0]; !s.Available {
		t.Errorf("%+v", s)
	}
}

func TestTheLimitOfEjectionsHolds(t *testing.T) {
	for _, test := range []struct {
		endpoints, percent, want int
	}{
		{1, 100, 0}, {2, 50, 1}, {2, 49, 0}, {2, 100, 1}, {3, 50, 1}, {4, 50, 2}, {4, 75, 3}, {4, 100, 3}, {10, 10, 1}, {10, 9, 0},
	} {
		t.Run(fmt.Sprintf("%d%% of %d", test.percent, test.endpoints), func(t *testing.T) {
			bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
				var addresses []string
				for i := range test.endpoints {
					addresses = append(addresses, fmt.Sprintf("e%d:1", i))
				}
				u := live(withDetection(upstream.OutlierOptions{Failures: 1, MaxPercent: test.percent}, func(o *upstream.Options) {
					draining := endpoint("draining:1", 1)
					draining.Draining = true
					o.Endpoints = append(o.Endpoints, draining)
				}, addresses...))
				for range 3 {
					for _, e := range u.Endpoints()[:test.endpoints] {
						results(e, "-")
					}
				}
				if n := ejected(u); n != test.want {
					t.Errorf("%d are ejected, want %d", n, test.want)
				}
			})
		})
	}
}

func ejected(u *upstream.Upstream) (n int) {
	for _, s := range u.Status() {
		if !s.EjectedUntil.IsZero() {
			n++
		}
	}
	return n
}

// Under random failures and check results, no more healthy endpoints are
// ejected than allowed, and while one is healthy, some endpoint takes traffic.
//
// No time passes: the race detector fails with many successive timers in one
// bubble (go.dev/issue/78156).
func TestTheLimitOfEjectionsHoldsUnderRandomFailures(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			n, percent := 1+r.IntN(8), 1+r.IntN(100)
			var addresses []string
			for i := range n {
				addresses = append(addresses, fmt.Sprintf("e%d:1", i))
			}
			live := func(before *upstream.Upstream) *upstream.Upstream {
				u := withDetection(upstream.OutlierOptions{Failures: 2, Percent: 40, MinAttempts: 5, MaxPercent: percent, Base: time.Hour}, func(o *upstream.Options) {
					o.Check = upstream.CheckOptions{Timeout: 24 * time.Hour, Check: func(ctx context.Context, _ *upstream.Endpoint) error {
						<-ctx.Done()
						return ctx.Err()
					}}
					o.Replaces = before
				}, addresses...)
				if before != nil {
					before.Retire()
				}
				u.Start()
				return u
			}
			u := live(nil)
			defer func() { u.Retire() }()
			for _, e := range u.Endpoints() {
				upstream.Answer(e, true)
			}
			ejections := 0
			for range 600 {
				switch e := u.Endpoints()[r.IntN(n)]; r.IntN(10) {
				case 0:
					upstream.Answer(e, r.IntN(2) == 0)
				case 1:
					upstream.EndEjection(e)
				case 2:
					if r.IntN(10) == 0 {
						u = live(u)
					}
				default:
					e.NoteResult(r.IntN(3) == 0)
				}
				away, well, open := 0, 0, 0
				for _, s := range u.Status() {
					if s.Health == upstream.Up {
						well++
						if !s.EjectedUntil.IsZero() {
							away++
						}
					}
					if s.Available {
						open++
					}
				}
				ejections += away
				if away*100 > n*percent {
					t.Fatalf("%d of %d are ejected, more than %d%%: %+v", away, n, percent, u.Status())
				}
				if got := choices(u); well > 0 && got == "none" {
					t.Fatalf("%d are healthy, %d available, and no endpoint is chosen", well, open)
				}
			}
			if ejections == 0 && n > 2 && percent > 60 {
				t.Error("no endpoint was ever ejected")
			}
		})
	}
}

// If the last endpoint goes down after others were ejected, an ejected one
// takes traffic.
func TestAnEjectedEndpointServesIfNoOtherIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		var w eventRecorder
		u := live(withDetection(upstream.OutlierOptions{Failures: 1, MaxPercent: 100, Base: time.Hour}, func(o *upstream.Options) {
			o.Check = upstream.CheckOptions{Check: p.ask}
			o.Observer = w.observe
		}, "a:1", "b:1", "c:1"))
		results(u.Endpoints()[1], "-")
		time.Sleep(7 * time.Minute) // more than the jitter
		results(u.Endpoints()[0], "-")
		p.set("c:1", errIll)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.take()
		wantChoices(t, u, "no other endpoint takes traffic", "b:1")
		w.want(t, "then", "returned up - 0")
		if n := ejected(u); n != 1 {
			t.Errorf("%d are ejected", n)
		}
	})
}

// A check that failed and then passed is newer evidence than traffic.
func TestAPassedCheckAfterAFailedOneEndsAnEjection(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		u := live(withDetection(upstream.OutlierOptions{Failures: 1, Base: time.Hour}, func(o *upstream.Options) {
			o.Check = upstream.CheckOptions{Check: p.ask}
		}, "a:1", "b:1"))
		results(u.Endpoints()[0], "-")
		time.Sleep(time.Minute)
		wantChoices(t, u, "a check that keeps passing", "b:1")
		p.set("a:1", errIll)
		time.Sleep(time.Minute)
		wantChoices(t, u, "a failed check", "b:1")
		p.set("a:1", nil)
		time.Sleep(time.Minute)
		wantChoices(t, u, "a passed check", "a:1 b:1")
	})
}

func TestARevisionKeepsEjections(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var w eventRecorder
		options := func(before *upstream.Upstream) *upstream.Upstream {
			return withDetection(upstream.OutlierOptions{Failures: 2}, func(o *upstream.Options) {
				o.Observer, o.Replaces = w.observe, before
			}, "a:1", "b:1")
		}
		u := live(options(nil))
		results(u.Endpoints()[0], "--")
		results(u.Endpoints()[1], "-")
		w.want(t, "at first", "ejected unknown - 0")
		time.Sleep(10 * time.Second)
		next := options(u)
		u.Retire()
		results(u.Endpoints()[1], "-") // the result of a request of the old revision
		next = live(next)
		wantChoices(t, next, "in the next revision", "b:1")
		if d := ejection(next, 0); d > 20*time.Second || d < 17*time.Second || next.Status()[0].Ejections != 0 {
			t.Errorf("for %v: %+v", d, next.Status()[0])
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		w.want(t, "after its time", "returned unknown - 0")
		wantChoices(t, next, "after its time", "a:1 b:1")

		// No ejection continues without outlier detection.
		results(next.Endpoints()[0], "--")
		plain := upstream.New(upstream.Options{Replaces: next, Endpoints: []upstream.EndpointOptions{endpoint("a:1", 1), endpoint("b:1", 1)}})
		next.Retire()
		wantChoices(t, live(plain), "without outlier detection", "a:1 b:1")
	})
}

// A retired upstream sends no Events, but its ejections still end.
func TestRetireEndsTheTimer(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var w eventRecorder
		u := live(withDetection(upstream.OutlierOptions{Failures: 1}, func(o *upstream.Options) { o.Observer = w.observe }, "a:1", "b:1"))
		results(u.Endpoints()[0], "-")
		u.Retire()
		w.take()
		time.Sleep(time.Hour)
		synctest.Wait()
		w.want(t, "after Retire")
		wantChoices(t, u, "after the time of the ejection", "a:1 b:1")
	})
}
