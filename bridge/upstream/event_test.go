package upstream_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An eventRecorder is an observer that records Events.
type eventRecorder struct {
	mu       sync.Mutex
	reported []string
}

func (w *eventRecorder) observe(e upstream.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	reason := certs.Reason("-")
	if e.Failure != nil && e.Failure.Reason != "" {
		reason = e.Failure.Reason
	}
	kind := map[upstream.EventKind]string{
		upstream.HealthChanged: "health", upstream.Failed: "failed", upstream.Ejected: "ejected", upstream.Returned: "returned",
	}[e.Kind]
	w.reported = append(w.reported, fmt.Sprintf("%s %s %s %d", kind, e.Health, reason, e.Count))
}

// take returns the Events since the last call.
func (w *eventRecorder) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	reported := w.reported
	w.reported = nil
	return reported
}

func (w *eventRecorder) want(t *testing.T, moment string, want ...string) {
	t.Helper()
	if got := w.take(); !slices.Equal(got, want) {
		t.Errorf("%s: reported %q, want %q", moment, got, want)
	}
}

func TestObserverReceivesFailuresAndHealth(t *testing.T) {
	var w eventRecorder
	gone := sockettest.Free(t)
	u := upstream.New(upstream.Options{Name: "up", Observer: w.observe, Endpoints: []upstream.EndpointOptions{endpoint(gone, 1)}})
	for range 100 {
		if _, _, err := u.Dial(t.Context(), upstream.Stream); err == nil {
			t.Fatal("no error")
		}
	}
	w.want(t, "while the endpoint refuses", "health down CONNECT_REFUSED 0", "failed down CONNECT_REFUSED 1")
	ln, err := net.Listen("tcp", gone)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for range 3 {
		conn, _, err := u.Dial(t.Context(), upstream.Stream)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	w.want(t, "when an observer exists", "health up - 0")
}

func TestEqualFailuresAreReportedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w eventRecorder
		u := upstream.New(upstream.Options{Name: "up", Observer: w.observe, Endpoints: []upstream.EndpointOptions{endpoint("a:1", 1), endpoint("b:1", 1)}})
		a, b := u.Endpoints()[0], u.Endpoints()[1]
		for range 1000 {
			a.NoteFailure(syscall.ECONNREFUSED)
			a.NoteFailure(syscall.ECONNRESET)
		}
		w.want(t, "at first", "health down CONNECT_REFUSED 0", "failed down CONNECT_REFUSED 1", "failed down PEER_CLOSED 1")
		b.NoteFailure(syscall.ECONNREFUSED)
		w.want(t, "another endpoint", "health down CONNECT_REFUSED 0", "failed down CONNECT_REFUSED 1")
		time.Sleep(10*time.Second - 1)
		a.NoteFailure(syscall.ECONNREFUSED)
		w.want(t, "before the time")
		time.Sleep(time.Nanosecond)
		a.NoteFailure(syscall.ECONNREFUSED)
		w.want(t, "at the time", "failed down CONNECT_REFUSED 1001")
	})
}

// A flapping endpoint causes a bounded number of Events, and the last shows
// its final state.
func TestFlappingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w eventRecorder
		u := upstream.New(upstream.Options{Name: "up", Observer: w.observe, Endpoints: []upstream.EndpointOptions{endpoint("a:1", 1)}})
		e := u.Endpoints()[0]
		for range 1000 {
			e.NoteFailure(syscall.ECONNREFUSED)
			e.NoteReply()
		}
		changes := 0
		for _, s := range w.take() {
			if strings.HasPrefix(s, "health") {
				changes++
			}
		}
		if changes != 6 {
			t.Errorf("%d changes were reported", changes)
		}
		e.NoteFailure(syscall.ECONNRESET)
		w.want(t, "still too soon", "failed down PEER_CLOSED 1")
		time.Sleep(10 * time.Second)
		e.NoteFailure(syscall.ECONNRESET)
		w.want(t, "later", "health down PEER_CLOSED 0", "failed down PEER_CLOSED 1")
	})
}

// A TLS 1.3 server rejects our certificate after the handshake: a completed
// handshake does not bring the endpoint up again.
func TestAHandshakeDoesNotUndoALateFailure(t *testing.T) {
	var w eventRecorder
	addr := listen(t, "tcp", func(c net.Conn) {})
	u := upstream.New(upstream.Options{Name: "up", Observer: w.observe, Endpoints: []upstream.EndpointOptions{endpoint(addr.String(), 1)}})
	refusal := &certs.VerifyError{Reason: certs.ReasonClientCertificateRejected}
	for range 3 {
		conn, e, err := u.Dial(t.Context(), upstream.Stream)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		e.NoteFailure(refusal)
	}
	w.want(t, "refused thrice", "health up - 0", "health down CLIENT_CERTIFICATE_REJECTED 0", "failed down CLIENT_CERTIFICATE_REJECTED 1")
	if s := only(t, u); s.Health != upstream.Down || s.Made != 3 {
		t.Errorf("%+v", s)
	}
	u.Endpoints()[0].NoteReply()
	w.want(t, "once it answered", "health up - 0")
}

// The observer may read the upstream of its Event.
func TestObserverMayReadItsUpstream(t *testing.T) {
	var u *upstream.Upstream
	var seen upstream.Health
	u = upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{endpoint("a:1", 1)}, Observer: func(upstream.Event) {
		seen = u.Status()[0].Health
	}})
	u.Endpoints()[0].NoteFailure(syscall.ECONNREFUSED)
	if seen != upstream.Down {
		t.Errorf("the observer saw %v", seen)
	}
}
