package certs_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A chooser is a server that records the offered groups. A test can change its
// own groups.
type chooser struct {
	*tlsServer
	mu      sync.Mutex
	config  *tls.Config
	offered []tls.CurveID // offered by the last ClientHello
}

func newChooser(t *testing.T, config *tls.Config, groups ...tls.CurveID) *chooser {
	t.Helper()
	c := &chooser{config: config.Clone()}
	c.config.SetSessionTicketKeys([][32]byte{{1}})
	c.choose(groups...)
	c.tlsServer = serveConfig(t, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.offered = slices.Clone(hello.SupportedCurves)
		return c.config, nil
	}})
	return c
}

// choose changes the server's groups. Earlier tickets remain valid.
func (c *chooser) choose(groups ...tls.CurveID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config = c.config.Clone()
	c.config.CurvePreferences = groups
}

// forget makes the server reject earlier tickets.
func (c *chooser) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config = c.config.Clone()
	c.config.SetSessionTicketKeys([][32]byte{{2}})
}

// see connects a client, and returns the connection's state and the offered
// groups.
func (c *chooser) see(t *testing.T, client *certs.Client) (tls.ConnectionState, string) {
	t.Helper()
	state, err := connect(t, client, c.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return state, fmt.Sprint(c.offered)
}

const (
	everyGroup = "[X25519MLKEM768 SecP256r1MLKEM768 SecP384r1MLKEM1024 X25519 CurveP256 CurveP384 CurveP521]"
	classical  = "[X25519 CurveP256 CurveP384 CurveP521]"
)

// A resumption does not offer groups that the server passed over, so the first
// key share is for the group that the server chooses.
func TestResumptionsOfferTheChosenGroupAndLaterOnes(t *testing.T) {
	type groups = []tls.CurveID
	for _, c := range []struct {
		name        string
		server, own groups
		first, then string
		chosen      tls.CurveID
		retried     bool // the first handshake had a HelloRetryRequest
	}{
		{"the hybrid", nil, nil, everyGroup, everyGroup, tls.X25519MLKEM768, false},
		{"X25519", groups{tls.X25519}, nil, everyGroup, classical, tls.X25519, false},
		{"P-256", groups{tls.CurveP256}, nil, everyGroup, "[CurveP256 CurveP384 CurveP521]", tls.CurveP256, true},
		{"the last group", groups{tls.CurveP521}, nil, everyGroup, "[CurveP521]", tls.CurveP521, true},
		{"a hybrid of P-256", groups{tls.SecP256r1MLKEM768}, nil, everyGroup,
			"[SecP256r1MLKEM768 SecP384r1MLKEM1024 X25519 CurveP256 CurveP384 CurveP521]", tls.SecP256r1MLKEM768, true},
		{"one of two groups", groups{tls.CurveP256}, groups{tls.CurveP256, tls.X25519}, "[X25519 CurveP256]", "[CurveP256]", tls.CurveP256, true},
		{"a single group", groups{tls.X25519}, groups{tls.X25519}, "[X25519]", "[X25519]", tls.X25519, false},
		{"two hybrids and nothing else", nil, groups{tls.SecP384r1MLKEM1024, tls.X25519MLKEM768},
			"[X25519MLKEM768 SecP384r1MLKEM1024]", "[X25519MLKEM768 SecP384r1MLKEM1024]", tls.X25519MLKEM768, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, o := mutual(t, certstest.NewCA(t))
			o.Groups = c.own
			s, client := newChooser(t, server, c.server...), newClient(t, o)
			for i := range 4 {
				want, retried := c.then, false
				if i == 0 {
					want, retried = c.first, c.retried
				}
				state, offered := s.see(t, client)
				if state.DidResume != (i > 0) || state.CurveID != c.chosen || state.HelloRetryRequest != retried {
					t.Errorf("connection %d: resumed %v, group %v, retried %v", i, state.DidResume, state.CurveID, state.HelloRetryRequest)
				}
				if offered != want {
					t.Errorf("connection %d: offered %s, want %s", i, offered, want)
				}
			}
		})
	}
}

// TLS 1.2 uses neither key shares nor hybrid groups.
func TestResumptionsUnderTLS12OfferNoHybrids(t *testing.T) {
	server, o := mutual(t, certstest.NewCA(t))
	server.MaxVersion = tls.VersionTLS12
	s, client := newChooser(t, server), newClient(t, o)
	for i, want := range []string{everyGroup, classical, classical} {
		if state, offered := s.see(t, client); offered != want || state.DidResume != (i > 0) {
			t.Errorf("connection %d: resumed %v, offered %s", i, state.DidResume, offered)
		}
	}
}

// A server that supports better groups after an upgrade is detected.
func TestServersAreOfferedAllGroupsAgain(t *testing.T) {
	for _, c := range []struct {
		name    string
		after   time.Duration
		change  func(*chooser)
		offered []string
		groups  []tls.CurveID
	}{
		{"after five minutes", 5 * time.Minute, func(*chooser) {},
			[]string{everyGroup, everyGroup}, []tls.CurveID{tls.X25519MLKEM768, tls.X25519MLKEM768}},
		{"not before", 4 * time.Minute, func(*chooser) {},
			[]string{classical, classical}, []tls.CurveID{tls.X25519, tls.X25519}},
		{"after the clock was set back", -time.Minute, func(*chooser) {},
			[]string{everyGroup, everyGroup}, []tls.CurveID{tls.X25519MLKEM768, tls.X25519MLKEM768}},
		{"when the server rejects the session", 0, (*chooser).forget,
			[]string{classical, everyGroup}, []tls.CurveID{tls.X25519, tls.X25519MLKEM768}},
		{"when the server requests another key share", 0, func(s *chooser) { s.choose(tls.CurveP256) },
			[]string{classical, everyGroup, "[CurveP256 CurveP384 CurveP521]"}, []tls.CurveID{tls.CurveP256, tls.CurveP256, tls.CurveP256}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := &clock{now: time.Now()}
			server, o := mutual(t, certstest.NewCA(t))
			o.Time = now.Now
			s, client := newChooser(t, server, tls.X25519), newClient(t, o)
			for _, want := range []string{everyGroup, classical} {
				if state, offered := s.see(t, client); offered != want || state.CurveID != tls.X25519 {
					t.Fatalf("offered %s, chosen %v", offered, state.CurveID)
				}
			}
			s.choose()
			c.change(s)
			now.Add(c.after)
			for i, want := range c.offered {
				if state, offered := s.see(t, client); offered != want || state.CurveID != c.groups[i] {
					t.Errorf("connection %d: offered %s, want %s; chosen %v", i, offered, want, state.CurveID)
				}
			}
		})
	}
}

// The lifetime of an offer begins with the last full offer, not with the last
// resumption. So a busy server gets full offers too.
func TestBusyServersAreOfferedAllGroupsAgain(t *testing.T) {
	now := &clock{now: time.Now()}
	server, o := mutual(t, certstest.NewCA(t))
	o.Time = now.Now
	s, client := newChooser(t, server, tls.X25519), newClient(t, o)
	for i := range 15 { // one connection a minute
		want := classical
		if i%5 == 0 {
			want = everyGroup
		}
		if _, offered := s.see(t, client); offered != want {
			t.Errorf("minute %d: offered %s", i, offered)
		}
		now.Add(time.Minute)
	}
}

// A server that accepts none of the offered groups fails the handshake, and
// the next handshake offers all.
func TestARejectedNarrowOfferIsReported(t *testing.T) {
	server, o := mutual(t, certstest.NewCA(t))
	s, client := newChooser(t, server, tls.X25519), newClient(t, o)
	s.see(t, client)
	s.choose(tls.X25519MLKEM768)
	_, err := connect(t, client, s.addr)
	if he, ok := errors.AsType[*certs.HandshakeError](err); !ok || !he.Narrow {
		t.Errorf("error %v", err)
	}
	if state, offered := s.see(t, client); offered != everyGroup || state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("offered %s, chosen %v", offered, state.CurveID)
	}

	s.choose(tls.CurveP521)
	o.Groups = []tls.CurveID{tls.X25519}
	_, err = connect(t, newClient(t, o), s.addr)
	if he, ok := errors.AsType[*certs.HandshakeError](err); !ok || he.Narrow {
		t.Errorf("error %v is attributed to a narrowed offer", err)
	}
}

// A probe shows which of all groups the server chooses.
func TestObserveOffersEveryGroup(t *testing.T) {
	server, o := mutual(t, certstest.NewCA(t))
	s, client := newChooser(t, server, tls.X25519), newClient(t, o)
	for range 2 {
		s.see(t, client)
	}
	seen, err := observe(t, client, s.addr, "")
	if err != nil {
		t.Fatal(err)
	}
	seen.Conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := fmt.Sprint(s.offered); got != everyGroup {
		t.Errorf("offered %s", got)
	}
}
