package upstream_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// passOn makes next continue from old, as between two processes.
func passOn(t *testing.T, old, next *upstream.Upstream) {
	t.Helper()
	before, _ := old.TakeState(1 << 20)
	text, err := json.Marshal(before)
	var state upstream.State
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	if err != nil {
		t.Fatal(err)
	}
	next.Adopt(state)
}

// The new process's checks have just begun, and each endpoint's first result decided
// alone. What the old process knows counts more.
func TestHealthCheckResultsSurviveAnUpgrade(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		next := func() { time.Sleep(11 * time.Second); synctest.Wait() } // lets at least one check of each endpoint run
		patient := func(o *upstream.Options) { o.Check.Unhealthy = 10 }
		old := live(checked(&p, patient, "a:1", "b:1", "c:1"))
		p.set("a:1", errIll)
		for range 10 {
			next()
		}
		p.set("a:1", nil)
		p.set("c:1", errIll)
		wantChoices(t, old, "in the old process", "b:1 c:1")
		u := live(checked(&p, patient, "a:1", "b:1", "c:1"))
		wantChoices(t, u, "after the new process's first checks", "a:1 b:1")
		passOn(t, old, u)
		wantChoices(t, u, "when the old process has more results", "b:1 c:1")
		if s := u.Status()[0]; s.Available || s.Unavailable != "has failed its health check and not yet passed it often enough" {
			t.Errorf("%+v", s)
		}
		next()
		wantChoices(t, u, "after another check", "a:1 b:1 c:1")
	})
}

// The results in a row that contradict a verdict continue in the next process.
func TestTheNextProcessContinuesCountingChecks(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p checkedServer
		old := live(checked(&p, nil, "a:1", "b:1"))
		for range 2 {
			upstream.Answer(old.Endpoints()[0], false)
		}
		u := live(checked(&checkedServer{takes: 4 * time.Second}, nil, "a:1", "b:1"))
		passOn(t, old, u)
		wantChoices(t, u, "at first", "a:1 b:1")
		upstream.Answer(u.Endpoints()[0], false)
		wantChoices(t, u, "after the third failure", "b:1")
	})
}

// Endpoints that were not checked yet take traffic if they did so in the old process.
func TestAdoptedHealthNeedsNoFirstCheck(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var p, slow checkedServer
		old := live(checked(&p, nil, "a:1", "b:1"))
		p.set("b:1", errIll)
		for range 4 {
			time.Sleep(11 * time.Second)
		}
		slow.takes = 4 * time.Second
		u := live(checked(&slow, nil, "a:1", "b:1", "c:1"))
		wantChoices(t, u, "before", "none")
		passOn(t, old, u)
		wantChoices(t, u, "after", "a:1")
		if s := u.Status()[1]; !strings.HasPrefix(s.Unavailable, "fails its health check: CHECK_FAILED") {
			t.Errorf("%q", s.Unavailable)
		}
		passOn(t, live(checked(&slow, nil, "a:1")), u) // it has no results
		wantChoices(t, u, "after a state without results", "a:1")
	})
}

func TestTheNextProcessContinuesEjections(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		var w eventRecorder
		o := upstream.OutlierOptions{Failures: 3, Percent: 60, MinAttempts: 10, Window: time.Minute}
		old := live(withDetection(o, nil, "a:1", "b:1", "c:1"))
		results(old.Endpoints()[0], "---")
		results(old.Endpoints()[1], "--")
		results(old.Endpoints()[2], "--+--+--+")
		time.Sleep(10 * time.Second)
		left := ejection(old, 0)

		u := live(withDetection(o, func(o *upstream.Options) { o.Observer = w.observe }, "a:1", "b:1", "c:1"))
		passOn(t, old, u)
		w.want(t, "at first", "ejected unknown - 0")
		wantChoices(t, u, "at first", "b:1 c:1")
		if got := ejection(u, 0); got != left {
			t.Errorf("ejected for another %v, want %v", got, left)
		}
		if s := u.Status()[0]; !strings.HasSuffix(s.Unavailable, ": 3 failures in a row") {
			t.Errorf("%q", s.Unavailable)
		}
		time.Sleep(left)
		synctest.Wait()
		w.want(t, "after its time", "returned unknown - 0")
		wantChoices(t, u, "after its time", "a:1 b:1 c:1")

		// The counts continue, and the second ejection is twice as long as the first.
		results(u.Endpoints()[0], "---")
		if got := ejection(u, 0); !about(got, time.Minute) {
			t.Errorf("the second ejection: %v", got)
		}
		wantChoices(t, u, "after the second ejection", "b:1 c:1")
		passed := live(withDetection(o, nil, "a:1", "b:1", "c:1"))
		passOn(t, old, passed)
		passOn(t, u, passed)
		wantChoices(t, passed, "in a third process", "b:1 c:1")
	})
}

func TestTheNextProcessContinuesTheCountsOfFailures(t *testing.T) {
	for name, results1 := range map[string]string{"in a row": "--", "of a window": "--+--+--+"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
				o := upstream.OutlierOptions{Failures: 3, Percent: 60, MinAttempts: 10, Window: time.Minute}
				old := live(withDetection(o, nil, "a:1", "b:1"))
				results(old.Endpoints()[0], results1)
				time.Sleep(20 * time.Second)
				u := live(withDetection(o, nil, "a:1", "b:1"))
				passOn(t, old, u)
				wantChoices(t, u, "at first", "a:1 b:1")
				results(u.Endpoints()[0], "-")
				wantChoices(t, u, "one failure later", "b:1")
			})
		})
	}
}

// An ejection ends early if no other endpoint takes traffic, in the next process too.
func TestAdoptedEjectionsLeaveOneEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		o := upstream.OutlierOptions{Failures: 1}
		old := live(withDetection(o, nil, "a:1", "b:1"))
		results(old.Endpoints()[0], "-")
		u := live(withDetection(o, nil, "a:1"))
		passOn(t, old, u)
		wantChoices(t, u, "the only endpoint", "a:1")
	})
}

func TestTheNextProcessContinuesASlowStart(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		slow := func(o *upstream.Options) { o.SlowStart = time.Minute }
		o := upstream.OutlierOptions{Failures: 1, Base: time.Second}
		old := live(withDetection(o, slow, "a:1", "b:1"))
		results(old.Endpoints()[0], "-")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		u := live(withDetection(o, slow, "a:1", "b:1"))
		passOn(t, old, u)
		first := upstream.Grown(u.Endpoints()[0])
		if was := upstream.Grown(old.Endpoints()[0]); first != was || first > 0.2 {
			t.Errorf("its share is %v, want %v", first, was)
		}
		time.Sleep(time.Minute)
		if got := upstream.Grown(u.Endpoints()[0]); got != 1 {
			t.Errorf("its share is %v", got)
		}
	})
}

// Endpoints from DNS and their states are known before the first answer, which may never
// come.
func TestTheDNSAnswerSurvivesAnUpgrade(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		detects := func(o *upstream.Options) {
			o.Outliers = &upstream.OutlierOptions{Failures: 1, MaxPercent: 50, Base: time.Hour, Max: time.Hour}
		}
		n := &names{}
		n.say("10.0.0.1:80", "10.0.0.2:80*3", "10.0.0.3:80!")
		old := live(byDNS(n, detects))
		results(old.Endpoints()[0], "-")
		wantChoices(t, old, "in the old process", "10.0.0.2:80")

		broken := &names{slow: make(chan struct{})}
		broken.fail(errNXDomain)
		u := live(byDNS(broken, detects))
		passOn(t, old, u)
		wantChoices(t, u, "in the new process", "10.0.0.2:80")
		if s := u.Status(); s[1].Weight != 3 || !s[2].Backup {
			t.Errorf("%+v", s)
		}
		if d := u.DNS(); !d.Resolved.Equal(old.DNS().Resolved) {
			t.Errorf("%+v", d)
		}
		close(broken.slow)
		pass(time.Minute)
		wantChoices(t, u, "while DNS fails", "10.0.0.2:80")
		broken.say("10.0.0.4:80")
		pass(time.Minute)
		wantChoices(t, u, "once DNS has answered", "10.0.0.4:80")
	})
}

// An answer of the new process is newer than that of the old one.
func TestAnAdoptedAnswerDoesNotReplaceANewerOne(t *testing.T) {
	bubble(t, func(t *testing.T, live func(*upstream.Upstream) *upstream.Upstream) {
		before, now := &names{}, &names{}
		before.say("10.0.0.1:80", "10.0.0.2:80")
		now.say("10.0.0.2:80")
		old, u := live(byDNS(before)), live(byDNS(now))
		passOn(t, old, u)
		wantChoices(t, u, "in the new process", "10.0.0.2:80")
	})
}

// An endpoint without a health check shows its last failure.
func TestTheLastFailureSurvivesAnUpgrade(t *testing.T) {
	gone := sockettest.Free(t)
	options := upstream.Options{Name: "up", Endpoints: []upstream.EndpointOptions{endpoint(gone, 1)}}
	old, u := upstream.New(options), upstream.New(options)
	if _, _, err := old.Dial(t.Context(), upstream.Stream); err == nil {
		t.Fatal("no error")
	}
	passOn(t, old, u)
	was, s := old.Status()[0], u.Status()[0]
	if s.Health != upstream.Down || s.LastFailure == nil || s.LastFailure.Reason != was.LastFailure.Reason || !s.Available {
		t.Errorf("%+v", s)
	}
}
