package upstream_test

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A hello holds the fields that a server received in a handshake.
type hello struct {
	name    string
	resumed bool
}

// fromHost returns an upstream that takes the server name from the host, and
// the hellos that its server for a.test, b.test and 127.0.0.1 received.
func fromHost(t *testing.T, version uint16) (*upstream.Upstream, chan hello) {
	ca := certstest.NewCA(t)
	seen := make(chan hello, 100)
	config := &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "a.test", "b.test", "127.0.0.1"))},
		MaxVersion:   version,
	}
	addr := listen(t, "tcp", func(conn net.Conn) {
		c := tls.Server(conn, config)
		if c.Handshake() == nil {
			seen <- hello{c.ConnectionState().ServerName, c.ConnectionState().DidResume}
		}
		echoOn(c)
	})
	client := newClient(t, certs.ClientOptions{FromHost: true, Trust: []*certs.TrustBundle{ca.Trust(t)}})
	u := upstream.New(upstream.Options{Name: "up", Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: addr.String(), Stream: client, HTTP: client},
	}})
	if !u.FromHost() {
		t.Fatal("FromHost returns false")
	}
	return u, seen
}

// The server would resume any of these sessions, so the client must keep them
// apart.
func TestServerNameFromHost(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			u, seen := fromHost(t, version)
			for _, step := range []struct {
				host string
				want hello
			}{
				{"a.test", hello{"a.test", false}},
				{"a.test", hello{"a.test", true}},
				{"b.test", hello{"b.test", false}},
				{"127.0.0.1", hello{"", false}},
				{"b.test", hello{"b.test", true}},
				{"a.test", hello{"a.test", true}},
			} {
				conn, _, err := u.DialAs(t.Context(), upstream.Stream, step.host)
				if err != nil {
					t.Fatalf("%s: %v", step.host, err)
				}
				exchange(t, conn) // reads the tickets too
				conn.Close()
				if got := <-seen; got != step.want {
					t.Errorf("%s: the server saw %+v, want %+v", step.host, got, step.want)
				}
			}
			if s := only(t, u); s.Health != upstream.Up || s.HandshakesFull != 3 || s.HandshakesResumed != 3 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Clients choose the host, so failures due to their choice must not take the
// endpoint down.
func TestAClientCannotTakeAnEndpointDown(t *testing.T) {
	u, _ := fromHost(t, 0)
	for _, test := range []struct {
		host     string
		reason   certs.Reason
		connects uint64
	}{
		{"", certs.ReasonLocalConfig, 0}, // the gateway does not dial
		{"evil.test", certs.ReasonNameMismatch, 1},
	} {
		_, _, err := u.DialAs(t.Context(), upstream.HTTP, test.host)
		var dial *upstream.DialError
		if !errors.As(err, &dial) || dial.Reason != test.reason || dial.Phase != "tls" {
			t.Errorf("%q: %v, want %s", test.host, err, test.reason)
		}
		if s := only(t, u); s.Health != upstream.Unknown || s.Failures[test.reason] != 1 || s.Connects.Count != test.connects || s.Open != 0 {
			t.Errorf("%q: %+v", test.host, s)
		}
	}
	if _, _, err := u.Dial(t.Context(), upstream.HTTP); certs.Classify(err) != certs.ReasonLocalConfig {
		t.Errorf("Dial: %v", err)
	}
}

func TestFixedNamesAndPlaintextNeedNoHost(t *testing.T) {
	m := newMutualServer(t)
	u := m.revision(t, nil, certstest.Certificate(t, m.ca.Client(t, "c")))
	plain := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{endpoint(m.addr, 1)}})
	for _, u := range []*upstream.Upstream{u, plain} {
		if u.FromHost() {
			t.Error("takes the name from the host")
		}
		for _, host := range []string{"", "other.test"} {
			conn, _, err := u.DialAs(t.Context(), upstream.Stream, host)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
	}
}

func TestFlushMakesTheNextHandshakeFull(t *testing.T) {
	m := newMutualServer(t)
	u := m.revision(t, nil, certstest.Certificate(t, m.ca.Client(t, "c")))
	if n := u.Flush(); n != 0 {
		t.Errorf("flushed %d sessions before there were any", n)
	}
	for _, p := range []upstream.Purpose{upstream.Stream, upstream.HTTP} {
		dial(t, u, p).Close()
	}
	if n := u.Flush(); n < 2 {
		t.Errorf("flushed %d sessions, want at least one for each purpose", n)
	}
	dial(t, u, upstream.Stream).Close()
	dial(t, u, upstream.Stream).Close()
	s := only(t, u)
	if s.HandshakesFull != 3 || s.HandshakesResumed != 1 {
		t.Errorf("%d full, %d resumed", s.HandshakesFull, s.HandshakesResumed)
	}
	if s.Full[certs.FullNoTicket] != 2 || s.Full[certs.FullFlushed] != 1 {
		t.Errorf("full for %v", s.Full)
	}
}

func TestStatusCountsFailuresOfReportOnlyVerification(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	addr := listen(t, "tcp", echoTLS(&tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}}))
	client := func() *certs.Client {
		return newClient(t, certs.ClientOptions{ServerName: "other.test", Trust: []*certs.TrustBundle{other.Trust(t)}, Verification: certs.VerifyReportOnly})
	}
	both := client()
	u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: addr.String(), Stream: client(), HTTP: client()},
		{Network: "tcp", Address: addr.String(), Stream: both, HTTP: both},
	}})
	for range 2 {
		for _, p := range []upstream.Purpose{upstream.Stream, upstream.HTTP} {
			for _, e := range u.Endpoints() {
				conn, err := e.DialAs(t.Context(), p, "")
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
		}
	}
	for _, s := range u.Status() {
		if s.Reported[certs.ReasonUnknownCA] != 4 || s.Reported[certs.ReasonNameMismatch] != 4 || len(s.Failures) != 0 {
			t.Errorf("reported %v, failures %v", s.Reported, s.Failures)
		}
	}
}
