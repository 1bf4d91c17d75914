package certs_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

type full = map[certs.FullReason]uint64

// wantStats fails the test unless the counters are as given.
func wantStats(t testing.TB, c *certs.Client, resumed uint64, want full) {
	t.Helper()
	if got := c.SessionStats(); got.Resumed != resumed || !maps.Equal(got.Full, want) {
		t.Errorf("resumed %d, full %v, want %d and %v", got.Resumed, got.Full, resumed, want)
	}
}

// times connects n times.
func times(t testing.TB, n int, c *certs.Client, addr string) {
	t.Helper()
	for range n {
		if _, err := connect(t, c, addr); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheFirstHandshakeIsFullWithoutATicket(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion = version
		s, c := serveConfig(t, server), newClient(t, o)
		wantStats(t, c, 0, nil)
		times(t, 3, c, s.addr)
		wantStats(t, c, 2, full{certs.FullNoTicket: 1})
	})
}

func TestHandshakesStayFullWithoutTickets(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		server.SessionTicketsDisabled, o.MaxVersion = true, version
		s, c := serveConfig(t, server), newClient(t, o)
		times(t, 3, c, s.addr)
		wantStats(t, c, 0, full{certs.FullNoTicket: 3})
	})
}

// A ticket may be 64 KiB long, so a Client must not keep hundreds of them.
func TestLongTicketsAreNotKept(t *testing.T) {
	for _, c := range []struct {
		extra   int
		resumed uint64
		full    full
	}{
		{8 << 10, 1, full{certs.FullNoTicket: 1}},
		{20 << 10, 0, full{certs.FullNoTicket: 2}},
	} {
		bothVersions(t, func(t *testing.T, version uint16) {
			server, o := mutual(t, certstest.NewCA(t))
			o.MaxVersion = version
			server.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
				session.Extra = append(session.Extra, make([]byte, c.extra))
				return server.EncryptTicket(state, session)
			}
			server.UnwrapSession = server.DecryptTicket
			s, client := serveConfig(t, server), newClient(t, o)
			times(t, 2, client, s.addr)
			wantStats(t, client, c.resumed, c.full)
		})
	}
}

func TestHandshakesAreFullWithoutSessionReuse(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion, o.NoSessionReuse = version, true
		s, c := serveConfig(t, server), newClient(t, o)
		times(t, 2, c, s.addr)
		wantStats(t, c, 0, full{certs.FullReuseOff: 2})
	})
}

// Two concurrent connections have one ticket.
func TestHandshakesAreFullWhenTicketsAreUsedUp(t *testing.T) {
	server, o := mutual(t, certstest.NewCA(t))
	addr, c := serveAtOnce(t, server), newClient(t, o)
	times(t, 1, c, addr)
	a, b := open(t, c, addr), open(t, c, addr)
	wantStats(t, c, 1, full{certs.FullNoTicket: 1, certs.FullUsedUp: 1})
	for _, conn := range []*tls.Conn{a, b} {
		io.ReadFull(conn, make([]byte, 1)) // a ticket arrives with this byte
		conn.Close()
	}
	times(t, 2, c, addr)
	wantStats(t, c, 3, full{certs.FullNoTicket: 1, certs.FullUsedUp: 1})
}

// A server has lost its ticket keys, for example in a restart.
func TestHandshakesAreFullAfterTheServerRejectsATicket(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion = version
		server.SetSessionTicketKeys([][32]byte{{1}})
		s, c := serveConfig(t, server), newClient(t, o)
		times(t, 2, c, s.addr)
		server.SetSessionTicketKeys([][32]byte{{2}})
		times(t, 2, c, s.addr)
		wantStats(t, c, 2, full{certs.FullNoTicket: 1, certs.FullRefused: 1})
	})
}

// A resumed session fails verification, which makes the next handshake full.
func TestHandshakesAreFullAfterAResumedSessionFailsVerification(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		now := &clock{now: time.Now()}
		serverLeaf := func(ca *certstest.CA) *tls.Certificate {
			c := certstest.TLS(t, ca.Leaf(t, pki.LeafOptions{DNSNames: []string{"upstream.test"}, NotAfter: now.now.Add(9 * time.Hour)}))
			return &c
		}
		old := serverLeaf(intermediate(t, ca, now.now.Add(-time.Hour), now.now.Add(time.Hour)))
		renewed := serverLeaf(intermediate(t, ca, now.now.Add(-time.Hour), now.now.Add(9*time.Hour)))
		var mu sync.Mutex
		present := old
		s := serveConfig(t, &tls.Config{MaxVersion: version, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			return present, nil
		}})
		c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, Time: now.Now})
		times(t, 2, c, s.addr)
		mu.Lock()
		present = renewed
		mu.Unlock()
		now.Add(2 * time.Hour)
		_, err := connect(t, c, s.addr)
		wantReason(t, err, certs.ReasonExpired)
		times(t, 2, c, s.addr)
		wantStats(t, c, 2, full{certs.FullNoTicket: 1, certs.FullRefused: 1})
	})
}

// TLS 1.3 tickets live for a week; a session of either version ends with the
// server's certificate.
func TestHandshakesAreFullAfterATicketExpires(t *testing.T) {
	for _, c := range []struct {
		name     string
		lifetime time.Duration // the lifetime of the first certificate
		later    time.Duration
		only     uint16
	}{
		{"the ticket", 30 * 24 * time.Hour, 8 * 24 * time.Hour, tls.VersionTLS13},
		{"the certificate", time.Hour, 2 * time.Hour, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				if c.only != 0 && c.only != version {
					t.Skip("sessions of TLS 1.2 have no end of their own here")
				}
				ca := certstest.NewCA(t)
				now := &clock{now: time.Now()}
				first := leaf(t, ca, pki.LeafOptions{DNSNames: []string{"upstream.test"}, NotAfter: now.now.Add(c.lifetime)})
				second := leaf(t, ca, pki.LeafOptions{DNSNames: []string{"upstream.test"}, NotAfter: now.now.Add(60 * 24 * time.Hour)})
				start := now.now
				s := serveConfig(t, &tls.Config{MaxVersion: version, Time: now.Now, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
					if now.Now().After(start) {
						return &second, nil
					}
					return &first, nil
				}})
				client := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, Time: now.Now})
				times(t, 2, client, s.addr)
				now.Add(c.later)
				times(t, 2, client, s.addr)
				wantStats(t, client, 2, full{certs.FullNoTicket: 1, certs.FullExpired: 1})
			})
		})
	}
}

func TestHandshakesAreFullAfterAFlush(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion = version
		addr, c := serveAtOnce(t, server), newClient(t, o)
		if n := c.Flush(); n != 0 {
			t.Errorf("%d sessions before any", n)
		}
		times(t, 1, c, addr)
		before := open(t, c, addr) // this one resumes; its own ticket has not arrived yet
		if n := c.Flush(); n != map[uint16]int{tls.VersionTLS12: 1, tls.VersionTLS13: 0}[version] {
			t.Errorf("%d sessions were flushed", n)
		}
		io.ReadFull(before, make([]byte, 1))
		before.Close()
		times(t, 2, c, addr)
		wantStats(t, c, 2, full{certs.FullNoTicket: 1, certs.FullFlushed: 1})
		if n := c.Flush(); n != 1 {
			t.Errorf("%d sessions were flushed", n)
		}
		times(t, 1, c, addr)
		wantStats(t, c, 2, full{certs.FullNoTicket: 1, certs.FullFlushed: 2})
	})
}

func TestHandshakesAreFullAfterCredentialsChange(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		server, o := mutual(t, ca)
		o.MaxVersion = version
		s, first := serveConfig(t, server), newClient(t, o)

		o.Replaces = first // the replaced Client had no session, so the reason is unchanged
		second := newClient(t, o)
		times(t, 2, second, s.addr)
		wantStats(t, second, 1, full{certs.FullNoTicket: 1})

		o.Replaces, o.Certificate = second, certstest.Certificate(t, ca.Client(t, "client-b"))
		third := newClient(t, o)
		o.Replaces = third // replaced before there was a ticket
		fourth := newClient(t, o)
		for len(s.handshakes) > 0 {
			<-s.handshakes
		}
		times(t, 3, fourth, s.addr)
		wantStats(t, fourth, 2, full{certs.FullCredentialsChanged: 1})
		for range 3 {
			if got := (<-s.handshakes).state.PeerCertificates[0].Subject.CommonName; got != "client-b" {
				t.Errorf("the server received %s", got)
			}
		}
		wantStats(t, second, 1, full{certs.FullNoTicket: 1})
		if got := fourth.Options(); got.Replaces != nil {
			t.Error("the replaced Client stays in memory")
		}
	})
}

// The reason is reported for each host.
func TestCredentialChangesAreReportedForEachHost(t *testing.T) {
	ca := certstest.NewCA(t)
	s := serveConfig(t, tlsConfig(t, ca.Server(t, "a.test", "b.test")))
	o := certs.ClientOptions{FromHost: true, Trust: []*certs.TrustBundle{ca.Trust(t)}}
	before := newClient(t, o)
	if _, err := connectAs(t, before, s.addr, "a.test"); err != nil {
		t.Fatal(err)
	}
	o.Replaces = before
	c := newClient(t, o)
	for _, host := range []string{"a.test", "b.test"} {
		if _, err := connectAs(t, c, s.addr, host); err != nil {
			t.Fatal(err)
		}
	}
	wantStats(t, c, 0, full{certs.FullCredentialsChanged: 1, certs.FullNoTicket: 1})
}

// A failed handshake is in no counter.
func TestFailedHandshakesAreNotCounted(t *testing.T) {
	server, o := mutual(t, certstest.NewCA(t))
	o.VerifyName = "other.test"
	s, c := serveConfig(t, server), newClient(t, o)
	_, err := connect(t, c, s.addr)
	wantReason(t, err, certs.ReasonNameMismatch)
	wantStats(t, c, 0, nil)
}

func TestReportedFailuresAreCounted(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		server := ca.Server(t, "other.test")
		s := serveConfig(t, tlsConfig(t, server))
		depth := uint32(0)
		c := newClient(t, certs.ClientOptions{
			ServerName: "upstream.test", Verification: certs.VerifyReportOnly, MaxVersion: version, VerifyDepth: &depth,
			Trust: []*certs.TrustBundle{ca.TrustCRLs(t, ca.CRL(t, server.Leaf))}, Pins: [][32]byte{{1}},
		})
		times(t, 3, c, s.addr)
		got := c.SessionStats()
		want := map[certs.Reason]uint64{certs.ReasonRevoked: 3, certs.ReasonPinMismatch: 3, certs.ReasonNameMismatch: 3}
		if !maps.Equal(got.Reported, want) || got.Resumed != 2 {
			t.Errorf("reported %v, resumed %d", got.Reported, got.Resumed)
		}
		got.Reported[certs.ReasonOther], got.Full[certs.FullRefused] = 7, 7 // the caller may change the result
		if again := c.SessionStats(); !maps.Equal(again.Reported, want) || again.Full[certs.FullRefused] != 0 {
			t.Errorf("again %+v", again)
		}
	})
}

// The API and this package have the same reasons.
func TestFullReasonsMatchTheAPI(t *testing.T) {
	find := func(file, pattern string) map[string]bool {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := make(map[string]bool)
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return names
	}
	api := find("../proto/drawbridge/admin/v1/status_service.proto", `(?m)^\s*FULL_HANDSHAKE_REASON_(\w+) = [1-9]`)
	here := find("stats.go", `FullReason = "(\w+)"`)
	if len(api) == 0 || !maps.Equal(api, here) {
		t.Errorf("the API has %v, here are %v", api, here)
	}
}

// A Client is safe for concurrent use.
func TestClientInParallel(t *testing.T) {
	ca := certstest.NewCA(t)
	addr := serveAtOnce(t, tlsConfig(t, ca.Server(t, "*.test")))
	c := newClient(t, certs.ClientOptions{FromHost: true, Trust: []*certs.TrustBundle{ca.TrustCRLs(t, ca.CRL(t))}})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 10 {
				if _, err := connectAs(t, c, addr, fmt.Sprintf("h%d.test", j%3)); err != nil {
					t.Error(err)
				}
				if i == 0 && j == 5 {
					c.Flush()
				}
				c.SessionStats()
			}
		})
	}
	all.Wait()
	stats := c.SessionStats()
	sum := stats.Resumed
	for _, n := range stats.Full {
		sum += n
	}
	if sum != 80 || stats.Resumed == 0 {
		t.Errorf("%+v", stats)
	}
}
