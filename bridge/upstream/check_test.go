package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A checkedServer answers the health checks of a test.
type checkedServer struct {
	mu    sync.Mutex
	err   map[string]error // by address; nil: the endpoint is healthy
	takes time.Duration    // duration of each answer
	asked []time.Time
}

func (p *checkedServer) ask(ctx context.Context, e *upstream.Endpoint) error {
	p.mu.Lock()
	err, takes := p.err[e.Address()], p.takes
	p.asked = append(p.asked, time.Now())
	p.mu.Unlock()
	select {
	case <-time.After(takes):
		return err
	case <-ctx.Done():
		return &certs.VerifyError{Reason: certs.ReasonResponseTimeout, Detail: "too late"}
	}
}

// set sets the answer of an endpoint from now on.
func (p *checkedServer) set(address string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = map[string]error{}
	}
	p.err[address] = err
}

// questions returns the times of the checks since the last call.
func (p *checkedServer) questions() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

var errIll = &certs.VerifyError{Reason: certs.ReasonCheckFailed, Detail: "it answers 500"}

// checked returns an upstream whose endpoints p checks.
func checked(p *checkedServer, change func(*upstream.Options), addresses ...string) *upstream.Upstream {
	o := upstream.Options{Name: "up", Check: upstream.CheckOptions{Check: p.ask, Kind: "tcp"}}
	for _, a := range addresses {
		o.Endpoints = append(o.Endpoints, endpoint(a, 1))
	}
	if change != nil {
		change(&o)
	}
	return upstream.New(o)
}

// bubble runs a test in a bubble and retires its upstreams.
func bubble(t *testing.T, test func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var all []*upstream.Upstream
		test(t, func(u *upstream.Upstream) *upstream.Upstream {
			all = append(all, u)
			u.Start()
			synctest.Wait()
			return u
		})
		for _, u := range all {
			u.Retire()
		}
	})
}

// choices returns the endpoints of Turns that do not wait, sorted.
func choices(u *upstream.Upstream) string {
	seen := map[string]bool{}
	var all []string
	for range 20 {
		var t upstream.Turn
		t.Begin(u, upstream.Key{})
		e, err := t.Next(nil)
		t.End()
		if err != nil {
			return "none"
		}
		if !seen[e.Address()] {
			seen[e.Address()] = true
			all = append(all, e.Address())
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func wantChoices(t *testing.T, u *upstream.Upstream, moment, want string) {
	t.Helper()
	synctest.Wait()
	if got := choices(u); got != want {
		t.Errorf("%s: traffic goes to %q, want %q", moment, got, want)
	}
}

func TestHealthChangesAtThresholds(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		var w eventRecorder
		u := live(checked(&p, func(o *upstream.Options) { o.Observer = w.observe }, "a:1", "b:1"))
		wantChoices(t, u, "after the first answer", "a:1 b:1")
		w.want(t, "at first", "health up - 0", "health up - 0")
		p.set("a:1", errIll)
		next := func() { time.Sleep(11 * time.Second); synctest.Wait() } // lets at least one check of each endpoint run
		next()
		wantChoices(t, u, "fewer failures than the threshold", "a:1 b:1")
		next()
		next()
		wantChoices(t, u, "three", "b:1")
		w.want(t, "after enough failures", "health down CHECK_FAILED 0")
		s := u.Status()[0]
		if s.Health != upstream.Down || s.Available || s.Unavailable != "fails its health check: CHECK_FAILED: it answers 500" {
			t.Errorf("%+v", s)
		}
		if c := s.Check; c.Healthy || !c.Checked || c.Reason != certs.ReasonCheckFailed || c.Message != "it answers 500" || c.Checks < 4 || c.Failures != c.Checks-1 {
			t.Errorf("%+v", c)
		}
		p.set("a:1", nil)
		time.Sleep(9 * time.Second)
		p.set("a:1", errIll) // one success is not enough
		next()
		p.set("a:1", nil)
		for range 3 {
			next()
		}
		wantChoices(t, u, "well again", "a:1 b:1")
		w.want(t, "after enough successes", "health up - 0")
		if s := u.Status()[0]; s.Health != upstream.Up || !s.Available || s.Unavailable != "" || !s.Check.Healthy || s.Check.Reason != "" {
			t.Errorf("%+v", s)
		}
	})
}

// A single result among several opposite ones changes nothing.
func TestOnlyConsecutiveResultsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []bool{true, false, false, true, false, false, true, false, false, false, true, false, true, false, true, true, false, false}
		want := "UUUUUUUUUDDDDDDUUU"
		var got strings.Builder
		at := 0
		var u *upstream.Upstream
		u = upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{endpoint("a:1", 1)}, Check: upstream.CheckOptions{
			Check: func(context.Context, *upstream.Endpoint) error {
				if at > 0 { // the result of the previous answer
					got.WriteString(strings.ToUpper(u.Status()[0].Health.String()[:1]))
				}
				if at == len(answers) {
					return context.Canceled
				}
				at++
				if answers[at-1] {
					return nil
				}
				return errIll
			},
		}})
		u.Start()
		time.Sleep(11 * time.Second * time.Duration(len(answers)+1))
		u.Retire()
		if s := got.String(); !strings.HasPrefix(s, want) {
			t.Errorf("the verdicts are %s, want %s", s, want)
		}
	})
}

func TestChecksStartAtOnceAndThenSpreadOut(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		p.takes = 300 * time.Millisecond
		addresses := make([]string, 50)
		for i := range addresses {
			addresses[i] = fmt.Sprintf("e%d:1", i)
		}
		begin := time.Now()
		live(checked(&p, nil, addresses...))
		time.Sleep(time.Millisecond)
		if n := len(p.questions()); n != len(addresses) {
			t.Errorf("%d of %d endpoints were checked at once", n, len(addresses))
		}
		time.Sleep(10*time.Second + 300*time.Millisecond)
		parts := make([]int, 4)
		for _, at := range p.questions() {
			parts[min(int(at.Sub(begin)/(2500*time.Millisecond)), 3)]++
		}
		for i, n := range parts {
			if n < 3 {
				t.Errorf("%d of the second questions fall into quarter %d: %v", n, i, parts)
			}
		}
	})
}

func TestIntervalsHaveJitterOfATenth(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		p.takes = time.Second
		live(checked(&p, nil, "a:1"))
		time.Sleep(1000 * time.Second)
		asked := p.questions()
		low, high := time.Hour, time.Duration(0)
		for i := 2; i < len(asked); i++ {
			d := asked[i].Sub(asked[i-1])
			low, high = min(low, d), max(high, d)
		}
		if low < 9500*time.Millisecond || high > 10500*time.Millisecond || high-low < 300*time.Millisecond {
			t.Errorf("from %v to %v apart", low, high)
		}
	})
}

func TestACheckTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		p.takes = time.Hour
		u := live(checked(&p, func(o *upstream.Options) { o.Check.Timeout = 2 * time.Second }, "a:1"))
		time.Sleep(2*time.Second - 1)
		if s := u.Status()[0]; s.Check.Checked || s.Health != upstream.Unknown || s.Available || s.Unavailable != "its first health check has not been answered yet" {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if s := u.Status()[0]; s.Health != upstream.Down || s.Check.Reason != certs.ReasonResponseTimeout || s.Check.Duration != 2*time.Second {
			t.Errorf("%+v %+v", s, s.Check)
		}
	})
}

// Traffic does not change the health of a checked endpoint.
func TestTrafficDoesNotChangeTheHealthOfACheckedEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		u := live(checked(&p, nil, "a:1"))
		e := u.Endpoints()[0]
		for range 100 {
			e.NoteFailure(syscall.ECONNREFUSED)
		}
		if s := u.Status()[0]; s.Health != upstream.Up || !s.Available || s.Failures[certs.ReasonConnectRefused] != 100 {
			t.Errorf("%+v", s)
		}
		p.set("a:1", errIll)
		time.Sleep(time.Minute)
		synctest.Wait()
		e.NoteReply()
		if s := u.Status()[0]; s.Health != upstream.Down {
			t.Errorf("%+v", s)
		}
	})
}

// A lack of descriptors in this process proves nothing about endpoints.
func TestLackOfDescriptorsIsNotACheckResult(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		u := live(checked(&p, nil, "a:1"))
		p.set("a:1", syscall.EMFILE)
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := u.Status()[0]; s.Health != upstream.Up || s.Check.Checks != 1 || s.Check.Failures != 0 {
			t.Errorf("%+v", s.Check)
		}
	})
}

// A Turn waits if no endpoint of its upstream has completed a check.
func TestTurnsWaitForTheFirstHealthCheck(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		p.takes = 3 * time.Second
		p.set("a:1", errIll)
		u := live(checked(&p, nil, "a:1", "b:1"))
		wait := func() (context.Context, func()) { return t.Context(), func() {} }
		begin := time.Now()
		next := func(wait func() (context.Context, func())) (string, error) {
			var turn upstream.Turn
			turn.Begin(u, upstream.Key{})
			defer turn.End()
			e, err := turn.Next(wait)
			if err != nil {
				return "", err
			}
			return e.Address(), nil
		}
		if _, err := next(nil); err != upstream.ErrNoEndpoint || time.Since(begin) != 0 {
			t.Errorf("a caller that does not wait: %v after %v", err, time.Since(begin))
		}
		if got, err := next(wait); got != "b:1" || err != nil || time.Since(begin) != p.takes {
			t.Errorf("sent to %q, %v, after %v", got, err, time.Since(begin))
		}

		// A canceled Turn stops waiting.
		u = live(checked(&p, nil, "a:1"))
		begin = time.Now()
		if _, err := next(func() (context.Context, func()) {
			return context.WithTimeout(t.Context(), time.Second)
		}); err != upstream.ErrNoEndpoint || time.Since(begin) != time.Second {
			t.Errorf("the caller that gives up: %v after %v", err, time.Since(begin))
		}
		// Failure of all checks is a result too.
		if _, err := next(wait); err != upstream.ErrNoEndpoint || time.Since(begin) != p.takes {
			t.Errorf("all checks failed: %v after %v", err, time.Since(begin))
		}

		// An upstream that was never started completes no check.
		u = checked(&p, nil, "a:1")
		begin = time.Now()
		if _, err := next(wait); err != upstream.ErrNoEndpoint || time.Since(begin) != 5*time.Second {
			t.Errorf("without checks: %v after %v", err, time.Since(begin))
		}
	})
}

func TestARevisionKeepsHealth(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		p.set("b:1", errIll)
		first := live(checked(&p, nil, "a:1", "b:1"))
		p.takes = 4 * time.Second
		p.questions()
		after := func(before *upstream.Upstream, change func(*upstream.Options)) *upstream.Upstream {
			next := checked(&p, func(o *upstream.Options) {
				o.Replaces = before
				if change != nil {
					change(o)
				}
			}, "a:1", "b:1", "c:1")
			before.Retire()
			return live(next)
		}
		second := after(first, nil)
		wantChoices(t, second, "before any answer in this revision", "a:1")
		if n := len(p.questions()); n != 3 {
			t.Errorf("%d endpoints were checked at once", n)
		}
		if s := second.Status(); s[0].Check.Checks != 0 || !s[0].Check.Checked || s[1].Health != upstream.Down || s[2].Check.Checked {
			t.Errorf("%+v %+v %+v", s[0].Check, s[1].Check, s[2].Check)
		}
		time.Sleep(5 * time.Second)
		wantChoices(t, second, "after the new revision's first checks", "a:1 c:1")

		// Another kind of check starts from the beginning.
		third := after(second, func(o *upstream.Options) { o.Check.Kind = "http" })
		wantChoices(t, third, "a check of another kind", "none")
		time.Sleep(5 * time.Second)
		wantChoices(t, third, "after its first answer", "a:1 c:1")

		// A streak continues across revisions.
		p.set("a:1", errIll)
		at := third
		for range 2 {
			at = after(at, func(o *upstream.Options) { o.Check.Kind = "http" })
			time.Sleep(5 * time.Second)
			synctest.Wait()
		}
		wantChoices(t, at, "two failures", "a:1 c:1")
		at = after(at, func(o *upstream.Options) { o.Check.Kind = "http" })
		time.Sleep(5 * time.Second)
		wantChoices(t, at, "the third", "c:1")

		// A Turn that waits at a replaced revision sees the results of the next
		// revision.
		waiting := live(checked(&p, nil, "d:1"))
		got := make(chan string)
		go func() {
			var turn upstream.Turn
			turn.Begin(waiting, upstream.Key{})
			defer turn.End()
			e, err := turn.Next(func() (context.Context, func()) { return t.Context(), func() {} })
			if err != nil {
				got <- err.Error()
				return
			}
			got <- e.Address()
		}()
		time.Sleep(time.Second)
		next := checked(&p, func(o *upstream.Options) { o.Replaces = waiting }, "d:1")
		waiting.Retire()
		p.mu.Lock()
		p.takes = time.Second
		p.mu.Unlock()
		live(next)
		if s := <-got; s != "d:1" {
			t.Errorf("the waiting Turn was sent to %q", s)
		}
	})
}

// No check runs before Start or after Retire, and Retire does not wait for a
// check to complete.
func TestChecksRunFromStartToRetire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p checkedServer
		p.takes = time.Hour
		u := checked(&p, func(o *upstream.Options) { o.Check.Timeout = 2 * time.Hour; o.Endpoints[1].Draining = true }, "a:1", "draining:1")
		time.Sleep(time.Hour)
		if n := len(p.questions()); n != 0 {
			t.Errorf("%d checks before Start", n)
		}
		u.Start()
		u.Start()
		synctest.Wait()
		if n := len(p.questions()); n != 1 {
			t.Errorf("%d checks", n)
		}
		begin := time.Now()
		u.Retire()
		if d := time.Since(begin); d != 0 {
			t.Errorf("Retire took %v", d)
		}
		u.Retire()
		u.Start()
		time.Sleep(time.Hour)
		if n := len(p.questions()); n != 0 {
			t.Errorf("%d checks after Retire", n)
		}
		if s := u.Status(); s[0].Check.Checks != 0 || s[0].Health != upstream.Unknown || s[1].Check != nil || s[1].Unavailable != "draining" {
			t.Errorf("%+v", s)
		}
	})
}

// An upstream without a healthy endpoint fails with its own error.
func TestAllEndpointsFailTheirChecks(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		p.set("a:1", errIll)
		p.set("backup:1", errIll)
		u := live(checked(&p, func(o *upstream.Options) { o.Endpoints[1].Backup = true }, "a:1", "backup:1"))
		_, _, err := u.Dial(t.Context(), upstream.Stream)
		if !errors.Is(err, upstream.ErrNoEndpoint) {
			t.Errorf("%v", err)
		}
		p.set("backup:1", nil)
		time.Sleep(time.Minute)
		wantChoices(t, u, "the backup is healthy", "backup:1")
		p.set("a:1", nil)
		time.Sleep(time.Minute)
		wantChoices(t, u, "the other endpoint is healthy too", "a:1")
	})
}
