package upstream_test

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func echoServer(t testing.TB) upstream.EndpointOptions {
	return endpoint(listen(t, "tcp", echoOn).String(), 1)
}

// Under any concurrency, no more connections are open than the limit allows,
// and each Turn gets one in the end.
func TestConnectionsAreLimited(t *testing.T) {
	const clients, rounds, perEndpoint, inAll = 24, 40, 3, 5
	for _, l := range []upstream.Limits{
		{ConnectionsPerEndpoint: perEndpoint}, {Connections: inAll}, {Connections: inAll, ConnectionsPerEndpoint: perEndpoint},
		{Connections: 1}, {Connections: inAll, Requests: 4},
	} {
		l.Pending, l.PendingTimeout = clients, time.Hour
		u := upstream.New(upstream.Options{Name: "u", Limits: l, Endpoints: []upstream.EndpointOptions{echoServer(t), echoServer(t)}})
		var total atomic.Int64
		per := map[*upstream.Endpoint]*atomic.Int64{}
		for _, e := range u.Endpoints() {
			per[e] = new(atomic.Int64)
		}
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for range rounds {
					var turn upstream.Turn
					turn.Begin(u, upstream.Key{})
					conn, e, err := turn.Dial(t.Context(), upstream.Stream, "")
					if err != nil {
						t.Error(err)
						return
					}
					if n := total.Add(1); l.Connections > 0 && n > int64(l.Connections) {
						t.Errorf("%+v: %d connections", l, n)
					}
					if n := per[e].Add(1); l.ConnectionsPerEndpoint > 0 && n > int64(l.ConnectionsPerEndpoint) {
						t.Errorf("%+v: %d connections to one endpoint", l, n)
					}
					exchange(t, conn)
					total.Add(-1)
					per[e].Add(-1)
					conn.Close()
					turn.End()
				}
			})
		}
		wg.Wait()
		made := uint64(0)
		for _, s := range u.Status() {
			made += s.Made
			if s.Open != 0 || s.InFlight != 0 || len(s.Failures) != 0 {
				t.Errorf("%+v: status %+v", l, s)
			}
		}
		if load := u.Load(); made != clients*rounds || load != (upstream.Load{}) {
			t.Errorf("%+v: %d connections were made, load %+v", l, made, load)
		}
	}
}

// The limit can be fully used by concurrent dials: a connection being made
// counts once.
func TestTheConnectionLimitCanBeFullyUsed(t *testing.T) {
	const most = 8
	came, gate := make(chan bool, 2*most), make(chan bool)
	address := listen(t, "tcp", func(net.Conn) { // a server that never completes a handshake
		came <- true
		<-gate
	})
	e := upstream.EndpointOptions{Network: "tcp", Address: address.String(), Stream: newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{certstest.NewCA(t).Trust(t)}})}
	u := upstream.New(upstream.Options{Name: "u", Limits: upstream.Limits{Connections: most}, Endpoints: []upstream.EndpointOptions{e}})
	var turns sync.WaitGroup
	for range most {
		turns.Go(func() {
			var turn upstream.Turn
			turn.Begin(u, upstream.Key{})
			defer turn.End()
			if _, _, err := turn.Dial(t.Context(), upstream.Stream, ""); err == nil || errors.Is(err, upstream.ErrOverloaded) {
				t.Errorf("%v, want a handshake that failed", err)
				came <- false
			}
		})
		<-came
	}
	close(gate)
	turns.Wait()
	if load := u.Load(); load != (upstream.Load{}) {
		t.Errorf("load %+v", load)
	}
}

// Without a queue a connection over the limit is refused, and no endpoint is
// blamed.
func TestAConnectionOverTheLimitIsRefused(t *testing.T) {
	u := upstream.New(upstream.Options{Name: "u", Limits: upstream.Limits{Connections: 1}, Endpoints: []upstream.EndpointOptions{echoServer(t), echoServer(t)}})
	conn, _, err := u.Dial(t.Context(), upstream.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Dial(t.Context(), upstream.Stream); err != upstream.ErrOverloaded {
		t.Errorf("Dial: %v", err)
	}
	for _, e := range u.Endpoints() {
		if _, err := e.DialAs(t.Context(), upstream.HTTP, ""); err != upstream.ErrFull || upstream.ReasonOf(err) != certs.ReasonOverloaded {
			t.Errorf("DialAs: %v", err)
		}
	}
	for _, s := range u.Status() {
		if s.Health == upstream.Down || len(s.Failures) != 0 || s.LastFailure != nil {
			t.Errorf("status %+v", s)
		}
	}
	conn.Close()
	conn, _, err = u.Dial(t.Context(), upstream.Stream)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// A failed connection releases its place.
func TestAFailedConnectionReleasesItsPlace(t *testing.T) {
	u := upstream.New(upstream.Options{Name: "u", Limits: upstream.Limits{Connections: 1, ConnectionsPerEndpoint: 1},
		Endpoints: []upstream.EndpointOptions{endpoint(sockettest.Free(t), 1)}})
	for range 3 {
		_, _, err := u.Dial(t.Context(), upstream.Stream)
		var dial *upstream.DialError
		if !errors.As(err, &dial) || dial.Reason != certs.ReasonConnectRefused {
			t.Fatalf("Dial: %v", err)
		}
	}
}

// At the limit, an unused connection is closed for a needed one, unless the
// same owner needs it.
func TestIdleConnectionsGiveWay(t *testing.T) {
	u := upstream.New(upstream.Options{Name: "u", Limits: upstream.Limits{Connections: 2}, Endpoints: []upstream.EndpointOptions{echoServer(t), echoServer(t)}})
	a, b := u.Endpoints()[0], u.Endpoints()[1]
	owner := new(int)
	var idle []net.Conn // the owner's idle connections to a
	u.SetEvictIdle(func(e *upstream.Endpoint, spare any) bool {
		if e == b || len(idle) == 0 || spare == owner {
			return false
		}
		a.NoteIdle(-1)
		idle[0].Close()
		idle = idle[1:]
		return true
	})
	var conns []net.Conn
	for range 2 {
		conn, err := a.DialAs(t.Context(), upstream.HTTP, "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	if _, _, err := u.Dial(t.Context(), upstream.Stream); err != upstream.ErrOverloaded {
		t.Errorf("with both in use: %v", err)
	}
	if b.MakeRoom(nil) {
		t.Error("there is room, though both are in use")
	}
	idle = conns
	a.NoteIdle(2)
	if _, err := b.DialAs(t.Context(), upstream.HTTP, ""); err != upstream.ErrFull || b.MakeRoom(owner) {
		t.Errorf("the owner's own connection was closed: %v", err)
	}
	var turns [3]upstream.Turn
	for i := range turns {
		turns[i].Begin(u, upstream.Key{})
		conn, _, err := turns[i].Dial(t.Context(), upstream.Stream, "")
		if i < 2 && err != nil || i == 2 && err != upstream.ErrOverloaded {
			t.Errorf("connection %d, with two that were idle: %v", i, err)
		}
		if err == nil {
			defer conn.Close()
		}
		turns[i].End()
	}
	if len(idle) != 0 {
		t.Errorf("%d connections are idle", len(idle))
	}
}

// A shared connection makes room for Turns that may share it, and for no
// others.
func TestSharedConnectionsTakeMoreRequests(t *testing.T) {
	u := upstream.New(upstream.Options{Name: "u", Limits: upstream.Limits{Connections: 1}, Endpoints: []upstream.EndpointOptions{echoServer(t)}})
	e := u.Endpoints()[0]
	conn, err := e.DialAs(t.Context(), upstream.HTTP, "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	e.NoteShared(1)
	shares, alone := begin(u), begin(u)
	alone.Exclusive()
	mustNext(t, shares)
	if _, err := alone.Next(nil); err != upstream.ErrOverloaded {
		t.Errorf("a Turn that needs a connection: %v", err)
	}
	e.NoteShared(-1)
	if _, err := begin(u).Next(nil); err != upstream.ErrOverloaded {
		t.Errorf("when the connection takes no more requests: %v", err)
	}
	shares.End()
	alone.End()
}

// A Turn is not sent forever to an endpoint that has no connection for it.
func TestATurnGivesUpIfItsEndpointKeepsNoConnection(t *testing.T) {
	u := upstream.New(upstream.Options{Name: "u", Limits: upstream.Limits{Connections: 1, Pending: 1}, Endpoints: []upstream.EndpointOptions{echoServer(t)}})
	turn := begin(u)
	defer turn.End()
	for range 100 {
		if _, err := turn.Next(patient(t.Context())); err == upstream.ErrOverloaded {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		turn.Full()
	}
	t.Error("it continues")
}

// Warm connections count toward the limit, fill the free room, and give way.
func TestWarmConnectionsHeedLimits(t *testing.T) {
	s := newWarmServer(t, nil)
	u := warm(t, upstream.Options{Warm: 5, Limits: upstream.Limits{ConnectionsPerEndpoint: 3}}, s)
	ready(t, u, 3)
	var conns []net.Conn
	for range 3 {
		conn, _, err := u.Dial(t.Context(), upstream.Stream)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	if _, _, err := u.Dial(t.Context(), upstream.Stream); err != upstream.ErrOverloaded {
		t.Errorf("a fourth: %v", err)
	}
	if st := only(t, u); st.Open != 3 || st.Health != upstream.Up || len(st.Failures) != 0 {
		t.Errorf("status %+v", st)
	}
	conns[0].Close()
	ready(t, u, 1)
	// Requests must not wait for a warm connection to end.
	e := u.Endpoints()[0]
	if _, err := e.DialAs(t.Context(), upstream.Stream, ""); err != upstream.ErrFull || !e.MakeRoom(nil) {
		t.Fatalf("with one warm connection: %v", err)
	}
	plain, err := e.DialAs(t.Context(), upstream.Stream, "")
	for err == upstream.ErrFull && e.MakeRoom(nil) { // the pool has filled the place again
		plain, err = e.DialAs(t.Context(), upstream.Stream, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	plain.Close()
	ready(t, u, 1)
}
