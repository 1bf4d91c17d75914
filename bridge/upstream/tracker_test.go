package upstream_test

import (
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A mutualServer is a server that requires client certificates, echoes, and reports
// the client of each connection.
type mutualServer struct {
	ca    *certstest.CA
	addr  string
	names chan string
}

func newMutualServer(t *testing.T) *mutualServer {
	m := &mutualServer{ca: certstest.NewCA(t), names: make(chan string, 100)}
	config := &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, m.ca.Server(t, "up.test"))},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    m.ca.Pool(),
	}
	m.addr = listen(t, "tcp", func(conn net.Conn) {
		c := tls.Server(conn, config)
		if c.Handshake() == nil {
			m.names <- c.ConnectionState().PeerCertificates[0].Subject.CommonName
			io.Copy(c, c)
		}
	}).String()
	return m
}

// revision returns an upstream to m with a client certificate, and the
// certificate's fingerprint.
func (m *mutualServer) revision(t *testing.T, tracker *upstream.Tracker, identity *certs.Certificate) *upstream.Upstream {
	t.Helper()
	o := certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{m.ca.Trust(t)}, Certificate: identity}
	return upstream.New(upstream.Options{Name: "up", Tracker: tracker, Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: m.addr, Stream: newClient(t, o), HTTP: newClient(t, o)},
	}})
}

func dial(t *testing.T, u *upstream.Upstream, p upstream.Purpose) net.Conn {
	t.Helper()
	conn, _, err := u.Dial(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	exchange(t, conn)
	return conn
}

func TestTrackerCountsByCertificateOverRevisions(t *testing.T) {
	m := newMutualServer(t)
	before, after := certstest.Certificate(t, m.ca.Client(t, "before")), certstest.Certificate(t, m.ca.Client(t, "after"))
	tracker := upstream.NewTracker()
	first := m.revision(t, tracker, before)
	a, b := dial(t, first, upstream.Stream), dial(t, first, upstream.HTTP)
	c := dial(t, m.revision(t, tracker, after), upstream.Stream)
	plain := upstream.New(upstream.Options{Name: "up", Tracker: tracker, Endpoints: []upstream.EndpointOptions{
		endpoint(listen(t, "tcp", func(c net.Conn) { io.Copy(c, c) }).String(), 1),
	}})
	d := dial(t, plain, upstream.HTTP)
	for i, want := range []map[string]int{
		{before.Fingerprint(): 2, after.Fingerprint(): 1, "": 1},
		{before.Fingerprint(): 1, after.Fingerprint(): 1, "": 1},
		{after.Fingerprint(): 1, "": 1},
		{"": 1},
		{},
	} {
		if got := tracker.Counts(); !maps.Equal(got, want) {
			t.Errorf("with %d closed: %v, want %v", i, got, want)
		}
		if i < 4 {
			[]net.Conn{a, b, c, d}[i].Close()
		}
	}
}

func TestFailedHandshakesAreNotTrackedForLong(t *testing.T) {
	m := newMutualServer(t)
	tracker := upstream.NewTracker()
	u := upstream.New(upstream.Options{Name: "up", Tracker: tracker, Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: m.addr, Stream: newClient(t, certs.ClientOptions{ServerName: "other.test", Trust: []*certs.TrustBundle{m.ca.Trust(t)}})},
	}})
	if _, _, err := u.Dial(t.Context(), upstream.Stream); err == nil {
		t.Fatal("no error")
	}
	if counts := tracker.Counts(); len(counts) != 0 {
		t.Errorf("%v", counts)
	}
}

func TestDrainOfOneCertificateLeavesTheOthers(t *testing.T) {
	m := newMutualServer(t)
	before, after := certstest.Certificate(t, m.ca.Client(t, "before")), certstest.Certificate(t, m.ca.Client(t, "after"))
	tracker := upstream.NewTracker()
	old, now := m.revision(t, tracker, before), m.revision(t, tracker, after)
	a, c := dial(t, old, upstream.Stream), dial(t, now, upstream.Stream)
	retired := make(chan struct{}, 10)
	b, err := old.Endpoints()[0].DialPooled(t.Context(), upstream.HTTP, "", retires(retired))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	if n := tracker.Drain("0000", false, 0); n != 0 {
		t.Errorf("an unknown certificate: %d", n)
	}
	if n := tracker.Drain(before.Fingerprint(), false, time.Hour); n != 2 {
		t.Errorf("drains %d, want 2", n)
	}
	<-retired // Drain has called Retire before
	exchange(t, a)
	exchange(t, b)
	if n := tracker.Drain(before.Fingerprint(), false, 0); n != 2 {
		t.Errorf("drains %d, want the same 2", n)
	}
	for _, conn := range []net.Conn{a, b} {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a drained connection reads %v", err)
		}
	}
	exchange(t, c)
	// A Read may fail a moment before the Tracker removes the connection.
	want := map[string]int{after.Fingerprint(): 1}
	for end := time.Now().Add(time.Minute); !maps.Equal(tracker.Counts(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left: %v", tracker.Counts())
		}
	}
}

// Connections open and close while others are counted and drained.
func TestTrackerUnderConcurrency(t *testing.T) {
	tracker := upstream.NewTracker()
	addr := listen(t, "tcp", func(c net.Conn) { io.Copy(c, c) })
	u := upstream.New(upstream.Options{Name: "up", Tracker: tracker, Endpoints: []upstream.EndpointOptions{endpoint(addr.String(), 1)}})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				conn, _, err := u.Dial(t.Context(), upstream.Stream)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = conn.Write([]byte("x")) // the connection may have been cut
				_, _ = conn.Read(make([]byte, 1))
				conn.Close()
			}
		})
	}
	for _, period := range []time.Duration{0, time.Hour, time.Millisecond} {
		all.Go(func() {
			for range 100 {
				tracker.Drain("", false, period)
				tracker.Counts()
			}
		})
	}
	all.Wait()
	// The goroutine that cut a connection may report it.
	for end := time.Now().Add(time.Minute); len(tracker.Counts()) != 0 || only(t, u).Open != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left: %v, open %d", tracker.Counts(), only(t, u).Open)
		}
	}
}

// A retires is a Holder of an idle connection. It sends a value for each call of
// Retire.
type retires chan struct{}

func (r retires) Retire()           { r <- struct{}{} }
func (r retires) Work() (int, bool) { return 0, true }

func (r retires) Protocol() live.Protocol { return live.HTTP1 }
