package certs_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestClientResumes(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion = version
		s, c := serveConfig(t, server), newClient(t, o)
		for i := range 4 {
			state, err := connect(t, c, s.addr)
			if err != nil {
				t.Fatal(err)
			}
			if state.Version != version {
				t.Fatalf("version %s", tls.VersionName(state.Version))
			}
			if state.DidResume != (i > 0) {
				t.Errorf("connection %d: resumed is %v", i, state.DidResume)
			}
			if at := <-s.handshakes; at.state.DidResume != (i > 0) || at.state.PeerCertificates[0].Subject.CommonName != "client-a" {
				t.Errorf("connection %d: the server saw resumed %v by %v", i, at.state.DidResume, at.state.PeerCertificates[0].Subject)
			}
		}
	})
}

func TestNoSessionReuse(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion, o.NoSessionReuse = version, true
		s, c := serveConfig(t, server), newClient(t, o)
		for range 3 {
			if state, err := connect(t, c, s.addr); err != nil || state.DidResume {
				t.Fatalf("resumed %v, error %v", state.DidResume, err)
			}
		}
	})
}

// Concurrent connections each deliver a ticket. The same number of later
// connections resume, each with its own ticket.
func TestTicketsAreKeptAndUsedOnce(t *testing.T) {
	const n = 5
	server, o := mutual(t, certstest.NewCA(t))
	var mu sync.Mutex
	used := make(map[string]int)
	server.UnwrapSession = func(identity []byte, state tls.ConnectionState) (*tls.SessionState, error) {
		mu.Lock()
		defer mu.Unlock()
		used[string(identity)]++
		return server.DecryptTicket(identity, state)
	}
	server.WrapSession = server.EncryptTicket
	s, c := serveAtOnce(t, server), newClient(t, o)

	round := func() (resumed int) {
		var conns []*tls.Conn
		for range n {
			conn := open(t, c, s)
			if conn.ConnectionState().DidResume {
				resumed++
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns { // each ticket arrives with the first byte
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		return resumed
	}
	if got := round(); got != 0 {
		t.Errorf("%d of the first %d connections resumed", got, n)
	}
	for range 2 {
		if got := round(); got != n {
			t.Errorf("%d of the next %d connections resumed", got, n)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(used) != 2*n {
		t.Errorf("%d tickets were offered, want %d", len(used), 2*n)
	}
	for _, times := range used {
		if times != 1 {
			t.Errorf("a ticket was offered %d times", times)
		}
	}
}

// serveAtOnce is serve for concurrent connections. It returns the address.
func serveAtOnce(t testing.TB, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer raw.Close()
				raw.SetDeadline(time.Now().Add(time.Minute))
				c := tls.Server(raw, config)
				if c.Handshake() == nil {
					c.Write([]byte("x"))
					io.Copy(io.Discard, c)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return l.Addr().String()
}

func open(t testing.TB, c *certs.Client, addr string) *tls.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := c.Handshake(ctx, raw)
	if err != nil {
		raw.Close()
		t.Fatal(err)
	}
	raw.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// A session belongs to one Client: after any rotation, the next connection
// presents the new identity in a full handshake.
func TestSessionsNeverCrossClients(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		server, first := mutual(t, ca)
		first.MaxVersion = version
		for _, c := range []struct {
			name   string
			change func(o *certs.ClientOptions)
			want   certs.Reason
			seen   string
		}{
			{"the same options", func(*certs.ClientOptions) {}, "", "client-a"},
			{"another client certificate", func(o *certs.ClientOptions) { o.Certificate = certstest.Certificate(t, ca.Client(t, "client-b")) }, "", "client-b"},
			{"no client certificate", func(o *certs.ClientOptions) { o.Certificate = nil }, certs.ReasonClientCertificateRequired, ""},
			{"other trust", func(o *certs.ClientOptions) { o.Trust = []*certs.TrustBundle{certstest.NewCA(t).Trust(t)} }, certs.ReasonUnknownCA, ""},
			{"another name to verify", func(o *certs.ClientOptions) { o.VerifyName = "other.test" }, certs.ReasonNameMismatch, ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				s, a := serveConfig(t, server), newClient(t, first)
				for i := range 2 {
					state, err := connect(t, a, s.addr)
					if err != nil || state.DidResume != (i > 0) {
						t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
					}
					<-s.handshakes
				}
				o := first
				c.change(&o)
				state, err := connect(t, newClient(t, o), s.addr)
				at := <-s.handshakes
				if state.DidResume || at.state.DidResume {
					t.Error("a session crossed")
				}
				if c.want != "" {
					wantReason(t, err, c.want)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := at.state.PeerCertificates[0].Subject.CommonName; got != c.seen {
					t.Errorf("the server saw %s, want %s", got, c.seen)
				}
			})
		}
	})
}

// clock is a time that a test sets between handshakes.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// The checks of the original handshake are repeated on resumption.
func TestResumedSessionsAreVerifiedAgain(t *testing.T) {
	hour := time.Hour
	for _, c := range []struct {
		name               string
		leafEnds, midEnds  time.Duration
		refusedWhenResumed bool // false: crypto/tls does not even offer a session with an expired leaf
	}{
		{"the leaf expires", hour, 9 * hour, false},
		{"the intermediate expires", 9 * hour, hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				ca := certstest.NewCA(t)
				now := &clock{now: time.Now()}
				mid := intermediate(t, ca, now.now.Add(-hour), now.now.Add(c.midEnds))
				server, o := mutual(t, ca)
				server.MaxVersion = version
				server.Certificates[0] = leaf(t, mid, pki.LeafOptions{DNSNames: []string{"upstream.test"}, NotAfter: now.now.Add(c.leafEnds)})
				o.Time = now.Now
				s, client := serveConfig(t, server), newClient(t, o)
				for i := range 3 {
					if state, err := connect(t, client, s.addr); err != nil || state.DidResume != (i > 0) {
						t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
					}
					<-s.handshakes
				}
				now.Add(2 * hour)
				_, err := connect(t, client, s.addr)
				wantReason(t, err, certs.ReasonExpired)
				if at := <-s.handshakes; at.state.DidResume != c.refusedWhenResumed {
					t.Errorf("the server saw resumed %v", at.state.DidResume)
				}
			})
		})
	}
}

// When a server has renewed its chain, the first rejected resumption drops the
// tickets of the old chain, and the client connects again.
func TestARefusedResumptionIsFollowedByAFullHandshake(t *testing.T) {
	ca := certstest.NewCA(t)
	now := &clock{now: time.Now()}
	old := intermediate(t, ca, now.now.Add(-time.Hour), now.now.Add(time.Hour))
	renewed := intermediate(t, ca, now.now.Add(-time.Hour), now.now.Add(9*time.Hour))
	issue := func(ca *certstest.CA) *tls.Certificate {
		c := leaf(t, ca, pki.LeafOptions{DNSNames: []string{"upstream.test"}, NotAfter: now.now.Add(9 * time.Hour)})
		return &c
	}
	presented := make(chan *tls.Certificate, 1)
	presented <- issue(old)
	server, o := mutual(t, ca)
	server.Certificates = nil
	server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := <-presented
		presented <- c
		return c, nil
	}
	o.Time = now.Now
	s, client := serveAtOnce(t, server), newClient(t, o)
	var open4 []*tls.Conn
	for range 4 { // leaves the client with four tickets
		open4 = append(open4, open(t, client, s))
	}
	for _, conn := range open4 {
		io.ReadFull(conn, make([]byte, 1))
		conn.Close()
	}
	<-presented
	presented <- issue(renewed)
	now.Add(2 * time.Hour)
	_, err := connect(t, client, s)
	wantReason(t, err, certs.ReasonExpired)
	if state, err := connect(t, client, s); err != nil || state.DidResume {
		t.Errorf("resumed %v, error %v", state.DidResume, err)
	}
}

// If a server fails on an unknown ticket, for example behind a balancer, only
// one connection fails, not one for each ticket.
func TestSessionsAreDroppedWhenOneFails(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion = version
		var broken atomic.Bool
		server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if broken.Load() {
				return nil, errors.New("out of order")
			}
			return nil, nil
		}
		addr, c := serveAtOnce(t, server), newClient(t, o)
		var conns []*tls.Conn
		for range 3 { // leaves the client with three tickets
			conns = append(conns, open(t, c, addr))
		}
		for _, conn := range conns {
			io.ReadFull(conn, make([]byte, 1))
			conn.Close()
		}
		broken.Store(true)
		_, err := connect(t, c, addr)
		wantReason(t, err, certs.ReasonOther)
		broken.Store(false)
		for i := range 2 {
			if state, err := connect(t, c, addr); err != nil || state.DidResume != (i > 0) {
				t.Errorf("connection %d: resumed %v, error %v", i, state.DidResume, err)
			}
		}
	})
}

func TestSessionsAreBounded(t *testing.T) {
	const n = 80
	server, o := mutual(t, certstest.NewCA(t))
	s, c := serveAtOnce(t, server), newClient(t, o)
	round := func() (resumed int) {
		var conns []*tls.Conn
		for range n {
			conns = append(conns, open(t, c, s))
		}
		for _, conn := range conns {
			if conn.ConnectionState().DidResume {
				resumed++
			}
			io.ReadFull(conn, make([]byte, 1))
			conn.Close()
		}
		return resumed
	}
	round()
	if got := round(); got != 64 {
		t.Errorf("%d connections resumed, want the 64 that are kept", got)
	}
}

// passOn returns a client's sessions, encoded and decoded as between two processes.
func passOn(t *testing.T, c *certs.Client) (s certs.SessionState) {
	t.Helper()
	text, err := json.Marshal(c.TakeSessions(8))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The Client of the next process resumes each session once, if its settings are the same
// and the session passes the current checks.
func TestSessionsArePassedOnToTheSameSettingsOnly(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		server, first := mutual(t, ca)
		first.MaxVersion = version
		for name, c := range map[string]struct {
			change  func(o *certs.ClientOptions)
			resumed bool
			fails   certs.Reason
		}{
			"the same":                   {func(*certs.ClientOptions) {}, true, ""},
			"another client certificate": {func(o *certs.ClientOptions) { o.Certificate = certstest.Certificate(t, ca.Client(t, "client-b")) }, false, ""},
			"another name":               {func(o *certs.ClientOptions) { o.VerifyName, o.ServerName = o.ServerName, "other.test" }, false, ""},
			"other protocols":            {func(o *certs.ClientOptions) { o.NextProtos = []string{"x"} }, false, ""},
			"other groups":               {func(o *certs.ClientOptions) { o.Groups = []tls.CurveID{tls.CurveP256} }, false, ""},
			"no reuse":                   {func(o *certs.ClientOptions) { o.NoSessionReuse = true }, false, ""},
			"other trust":                {func(o *certs.ClientOptions) { o.Trust = []*certs.TrustBundle{certstest.NewCA(t).Trust(t)} }, true, certs.ReasonUnknownCA},
		} {
			t.Run(name, func(t *testing.T) {
				s, old := serveConfig(t, server), newClient(t, first)
				for range 2 {
					if _, err := connect(t, old, s.addr); err != nil {
						t.Fatal(err)
					}
					<-s.handshakes
				}
				state := passOn(t, old)
				if len(state.Sessions) == 0 || state.Size() == 0 {
					t.Fatal("there are no sessions")
				}
				if left := old.Sessions(); version == tls.VersionTLS13 && left != 0 {
					t.Errorf("the old client keeps %d tickets", left)
				}
				o := first
				c.change(&o)
				next := newClient(t, o)
				next.AdoptSessions(state)
				got, err := connect(t, next, s.addr)
				at := <-s.handshakes
				if c.fails != "" {
					wantReason(t, err, c.fails)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got.DidResume != c.resumed || at.state.DidResume != c.resumed {
					t.Errorf("resumed is %t", got.DidResume)
				}
			})
		}
	})
}

func TestUnreadableSessionsAreIgnored(t *testing.T) {
	server, o := mutual(t, certstest.NewCA(t))
	s, old := serveConfig(t, server), newClient(t, o)
	if _, err := connect(t, old, s.addr); err != nil {
		t.Fatal(err)
	}
	<-s.handshakes
	state := passOn(t, old)
	for i := range state.Sessions {
		state.Sessions[i].State = state.Sessions[i].State[:10]
	}
	next := newClient(t, o)
	next.AdoptSessions(state)
	if n := next.Sessions(); n != 0 {
		t.Errorf("%d sessions", n)
	}
	if got, err := connect(t, next, s.addr); err != nil || got.DidResume {
		t.Errorf("resumed is %t, %v", got.DidResume, err)
	}
	<-s.handshakes
}
