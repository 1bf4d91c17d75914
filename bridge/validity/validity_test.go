package validity_test

import (
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeVerifier lets peers pass until a time, except those whose first certificate it
// rejects.
type fakeVerifier struct {
	until   time.Time
	rejects map[*x509.Certificate]certs.Reason
	calls   atomic.Int64
}

func (j *fakeVerifier) Reverify(p *certs.Peer) (time.Time, *certs.VerifyError) {
	j.calls.Add(1)
	if reason := j.rejects[p.Certificates[0]]; reason != "" {
		return j.until, &certs.VerifyError{Reason: reason, Detail: "rejected"}
	}
	if time.Now().After(j.until) {
		return j.until, &certs.VerifyError{Reason: certs.ReasonExpired, Detail: "expired"}
	}
	return j.until, nil
}

var serial atomic.Int64

// leaf returns a certificate that differs from every other.
func leaf() *x509.Certificate { return &x509.Certificate{Raw: fmt.Append(nil, serial.Add(1))} }

// A conn records how it is ended.
type conn struct {
	validity.Member
	mu    sync.Mutex
	ends  []time.Duration
	cause *certs.VerifyError
}

func (c *conn) EndWithin(grace time.Duration, cause *certs.VerifyError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends, c.cause = append(c.ends, grace), cause
}

func (c *conn) ended() (n int, grace time.Duration, cause *certs.VerifyError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ends) == 0 {
		return 0, 0, nil
	}
	return len(c.ends), c.ends[0], c.cause
}

type testbed struct {
	*validity.Set
	found []validity.Finding
	mu    sync.Mutex
}

func newTestbed() *testbed {
	w := new(testbed)
	w.Set = validity.New(validity.Options{Observe: func(f validity.Finding) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.found = append(w.found, f)
	}})
	return w
}

func (w *testbed) findings() []validity.Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]validity.Finding(nil), w.found...)
}

func (w *testbed) add(leaf *x509.Certificate) *conn {
	c := new(conn)
	w.Add(&c.Member, certs.NewPeer([]*x509.Certificate{leaf}), c)
	return c
}

var never = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

func TestAPolicyEndsExactlyThePeersThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, good, bad := newTestbed(), leaf(), leaf()
		w.Require(&validity.Policy{Verifier: &fakeVerifier{until: never}})
		stays, ends := w.add(good), w.add(bad)
		w.Require(&validity.Policy{Verifier: &fakeVerifier{until: never, rejects: map[*x509.Certificate]certs.Reason{bad: certs.ReasonRevoked}}, Grace: time.Minute})
		synctest.Wait()
		if n, grace, cause := ends.ended(); n != 1 || grace != time.Minute || cause.Reason != certs.ReasonRevoked {
			t.Errorf("the connection was ended %d times within %v because of %v", n, grace, cause)
		}
		if n, _, _ := stays.ended(); n != 0 || stays.Check() != nil || !stays.Verified() {
			t.Error("a peer that verifies was ended")
		}
		if ends.Check() == nil || ends.Verified() {
			t.Error("a connection that ends takes more work")
		}
		// A later policy that its peer passes does not revive the connection.
		w.Require(&validity.Policy{Verifier: &fakeVerifier{until: never}})
		synctest.Wait()
		if ends.Check() == nil {
			t.Error("a connection that ends takes more work after another change")
		}
		if got := w.findings(); len(got) != 1 || got[0].Count != 1 || got[0].Reason != certs.ReasonRevoked || !got[0].Ended {
			t.Errorf("found: %+v", got)
		}
		if got := w.Counts(); got.Ended[certs.ReasonRevoked] != 1 || len(got.Reported) != 0 {
			t.Errorf("counted: %+v", got)
		}
	})
}

// Between a change and the end of its run, Check verifies.
func TestCheckDoesNotWaitForTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, leaf := newTestbed(), leaf()
		c := w.add(leaf)
		j := &fakeVerifier{until: never, rejects: map[*x509.Certificate]certs.Reason{leaf: certs.ReasonUnknownCA}}
		if failure := c.CheckUnder(&validity.Policy{Verifier: j}); failure == nil || failure.Reason != certs.ReasonUnknownCA {
			t.Errorf("Check() = %v", failure)
		}
		synctest.Wait()
		if n, _, _ := c.ended(); n != 1 {
			t.Errorf("the connection was ended %d times", n)
		}
		for range 3 {
			c.Check()
		}
	})
}

func TestActions(t *testing.T) {
	for _, c := range []struct {
		name   string
		action validity.Action
		reason certs.Reason
		ends   bool
		grace  time.Duration
	}{
		{"drain", validity.Drain, certs.ReasonRevoked, true, time.Hour},
		{"close", validity.Close, certs.ReasonRevoked, true, 0},
		{"report", validity.Report, certs.ReasonRevoked, false, 0},
		{"report of a client without a certificate", validity.Report, certs.ReasonClientCertificateRequired, true, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, leaf := newTestbed(), leaf()
				conn := w.add(leaf)
				for range 3 { // the failure is reported once, although each revision verifies again
					w.Require(&validity.Policy{
						Verifier: &fakeVerifier{until: never, rejects: map[*x509.Certificate]certs.Reason{leaf: c.reason}},
						Action:   c.action, Grace: time.Hour,
					})
					synctest.Wait()
				}
				if n, grace, _ := conn.ended(); (n == 1) != c.ends || n > 1 || grace != c.grace {
					t.Errorf("it ended %d times within %v", n, grace)
				}
				if (conn.Check() != nil) != c.ends || conn.Verified() {
					t.Errorf("Check() = %v, verified: %v", conn.Check(), conn.Verified())
				}
				if got := w.findings(); len(got) != 1 || got[0].Ended != c.ends || got[0].Count != 1 {
					t.Errorf("found: %+v", got)
				}
			})
		})
	}
}

// A peer's validity ends with time, without any change.
func TestTheClockEndsPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestbed()
		j := &fakeVerifier{until: time.Now().Add(time.Hour)}
		w.Require(&validity.Policy{Verifier: j})
		var all []*conn
		for range 100 {
			all = append(all, w.add(leaf()))
		}
		time.Sleep(time.Hour)
		if n, _, _ := all[0].ended(); n != 0 {
			t.Fatal("the connection ended too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i, c := range all {
			if n, _, cause := c.ended(); n != 1 || cause.Reason != certs.ReasonExpired {
				t.Fatalf("connection %d ended %d times: %v", i, n, cause)
			}
			w.Remove(&c.Member)
		}
	})
}

// Connections with equal peers share one verdict.
func TestVerdictsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, leaf := newTestbed(), leaf()
		for range 1000 {
			w.add(leaf)
		}
		j := &fakeVerifier{until: never, rejects: map[*x509.Certificate]certs.Reason{leaf: certs.ReasonRevoked}}
		w.Require(&validity.Policy{Verifier: j})
		synctest.Wait()
		if n := j.calls.Load(); n != 1 {
			t.Errorf("%d verifications of one peer", n)
		}
		if got := w.Counts().Ended[certs.ReasonRevoked]; got != 1000 {
			t.Errorf("%d ended", got)
		}
	})
}

// Connections are added, removed and verified concurrently.
func TestASetIsSafeForConcurrentUse(t *testing.T) {
	w, bad := newTestbed(), leaf()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				leaf := leaf()
				if i%3 == 0 {
					leaf = bad
				}
				c := w.add(leaf)
				c.Check()
				w.Remove(&c.Member)
			}
		})
	}
	for i := range 100 {
		j := &fakeVerifier{until: never}
		if i%2 == 0 {
			j.rejects = map[*x509.Certificate]certs.Reason{bad: certs.ReasonRevoked}
		}
		w.Require(&validity.Policy{Verifier: j})
	}
	wg.Wait()
}

// A panic of one owner does not keep the others from ending.
func TestAPanicOfAnOwnerDoesNotAffectOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, leaf := newTestbed(), leaf()
		var broken panicking
		w.Add(&broken.Member, certs.NewPeer([]*x509.Certificate{leaf}), &broken)
		var all []*conn
		for range 10 {
			all = append(all, w.add(leaf))
		}
		w.Require(&validity.Policy{Verifier: &fakeVerifier{until: never, rejects: map[*x509.Certificate]certs.Reason{leaf: certs.ReasonRevoked}}})
		synctest.Wait()
		for i, c := range all {
			if n, _, _ := c.ended(); n != 1 {
				t.Errorf("connection %d ended %d times", i, n)
			}
		}
	})
}

type panicking struct{ validity.Member }

func (*panicking) EndWithin(time.Duration, *certs.VerifyError) { panic("broken") }
