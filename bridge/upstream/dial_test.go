package upstream_test

import (
	"crypto/tls"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// If a server no longer supports the one group that it used to choose, it gets
// a full offer at once, and the client sees no failure.
func TestANarrowOfferIsRetriedAtOnceInFull(t *testing.T) {
	ca := certstest.NewCA(t)
	var strict atomic.Bool
	config := &tls.Config{
		Certificates:     []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))},
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
	config.SetSessionTicketKeys([][32]byte{{1}})
	other := config.Clone()
	other.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if strict.Load() {
			return other, nil
		}
		return nil, nil
	}
	addr := listen(t, "tcp", echoTLS(config))
	u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{{
		Network: "tcp", Address: addr.String(),
		Stream: newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}}),
	}}})
	for _, want := range []tls.CurveID{tls.X25519, tls.X25519, tls.X25519MLKEM768, tls.X25519MLKEM768} {
		conn, _, err := u.Dial(t.Context(), upstream.Stream)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.(*tls.Conn).ConnectionState().CurveID; got != want {
			t.Errorf("the group is %v, want %v", got, want)
		}
		exchange(t, conn) // reads the tickets too
		conn.Close()
		if u.Status()[0].HandshakesResumed == 1 {
			strict.Store(true)
		}
	}
	s := only(t, u)
	if s.Made != 4 || s.Handshakes.Count != 5 || len(s.Failures) != 0 || s.Health != upstream.Up || s.Open != 0 {
		t.Errorf("status %+v", s)
	}
}

// A full offer is not the cause of a failure: one attempt is enough.
func TestAFullOfferIsMadeOnce(t *testing.T) {
	ca := certstest.NewCA(t)
	var hellos atomic.Int32
	addr := listen(t, "tcp", echoTLS(&tls.Config{
		Certificates:     []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))},
		CurvePreferences: []tls.CurveID{tls.CurveP521},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			hellos.Add(1)
			return nil, nil
		},
	}))
	u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{{
		Network: "tcp", Address: addr.String(),
		Stream: newClient(t, certs.ClientOptions{
			ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)},
			Groups: []tls.CurveID{tls.X25519}, MinVersion: tls.VersionTLS13,
		}),
	}}})
	if _, _, err := u.Dial(t.Context(), upstream.Stream); certs.Classify(err) != certs.ReasonNoCommonGroup {
		t.Errorf("error %v", err)
	}
	if n := hellos.Load(); n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
}
