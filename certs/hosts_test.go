package certs_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// connectAs is connect with a host.
func connectAs(t testing.TB, c *certs.Client, addr, host string) (tls.ConnectionState, error) {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := c.HandshakeAs(ctx, raw, host)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	raw.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return conn.ConnectionState(), err
	}
	state := conn.ConnectionState()
	return state, conn.Close()
}

// anyHost presents a certificate for any requested name, and for 127.0.0.1
// without a name. All hosts share ticket keys, so only the client keeps their
// sessions apart.
func anyHost(t testing.TB, ca *certstest.CA, version uint16, names ...string) (*tls.Config, chan string) {
	t.Helper()
	sni := make(chan string, 1000)
	issued := map[string]*tls.Certificate{}
	for _, n := range append(names, "127.0.0.1") {
		c := certstest.TLS(t, ca.Server(t, n))
		issued[n] = &c
	}
	return &tls.Config{MaxVersion: version, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		sni <- h.ServerName
		return nil, nil
	}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := issued[h.ServerName]; c != nil {
			return c, nil
		}
		return issued["127.0.0.1"], nil
	}}, sni
}

func TestFromHost(t *testing.T) {
	ca := certstest.NewCA(t)
	bothVersions(t, func(t *testing.T, version uint16) {
		config, sni := anyHost(t, ca, version, "a.test", "b.test")
		s := serveConfig(t, config)
		c := newClient(t, certs.ClientOptions{FromHost: true, Trust: []*certs.TrustBundle{ca.Trust(t)}})
		for _, step := range []struct {
			host, sent string
			resumed    bool
			want       certs.Reason
		}{
			{"a.test", "a.test", false, ""},
			{"b.test", "b.test", false, ""}, // not the session of a.test
			{"a.test", "a.test", true, ""},
			{"B.TEST.", "b.test", true, ""}, // the same host in another spelling
			{"127.0.0.1", "", false, ""},
			{"127.0.0.1", "", true, ""},
			{"::ffff:127.0.0.1", "", true, ""},
			{"c.test", "c.test", false, certs.ReasonNameMismatch},
			{"c.test", "c.test", false, certs.ReasonNameMismatch},
			{"a.test", "a.test", true, ""},
		} {
			state, err := connectAs(t, c, s.addr, step.host)
			if got := <-sni; got != step.sent {
				t.Errorf("%s: sent SNI %q", step.host, got)
			}
			if step.want != "" {
				wantReason(t, err, step.want)
				continue
			}
			if err != nil || state.DidResume != step.resumed {
				t.Errorf("%s: resumed %v, error %v", step.host, state.DidResume, err)
				continue
			}
			if err := state.PeerCertificates[0].VerifyHostname(strings.TrimSuffix(step.host, ".")); err != nil {
				t.Errorf("%s: %v", step.host, err)
			}
		}
	})
}

// Any client can choose the host of a request.
func TestFromHostRejectsInvalidHosts(t *testing.T) {
	ca := certstest.NewCA(t)
	c := newClient(t, certs.ClientOptions{FromHost: true, Trust: []*certs.TrustBundle{ca.Trust(t)}})
	for _, host := range []string{"", ".", "a..test", "a.test:443", "[::1]:443", "[::1", "::1]", "[a.test]", "a test", "a\x00.test", "fe80::1%eth0",
		"*.test", "zürich.test", "a.test\r\nX: y", strings.Repeat("a.", 200) + "test", strings.Repeat("\x1b", 100000)} {
		near, far := net.Pipe()
		read := make(chan int)
		go func() {
			n, _ := far.Read(make([]byte, 1))
			read <- n
		}()
		_, err := c.HandshakeAs(t.Context(), near, host)
		wantReason(t, err, certs.ReasonLocalConfig)
		checkText(t, err.Error())
		if seen, err := c.Observe(t.Context(), near, host); err == nil || seen.Conn != nil {
			t.Errorf("%.20q: Observe accepted this host", host)
		}
		near.Close()
		if n := <-read; n > 0 {
			t.Errorf("%.20q: something was sent", host)
		}
		far.Close()
	}
	if _, err := c.Handshake(t.Context(), nil); certs.Classify(err) != certs.ReasonLocalConfig {
		t.Errorf("Handshake without a host: %v", err)
	}
}

// The SNI may come from the host, and the verified name from elsewhere.
func TestFromHostWithNamesToVerify(t *testing.T) {
	ca := certstest.NewCA(t)
	sans, err := certs.ParseSANs([]string{"b.test"})
	if err != nil {
		t.Fatal(err)
	}
	config, sni := anyHost(t, ca, tls.VersionTLS13, "a.test", "b.test")
	s := serveConfig(t, config)
	for name, o := range map[string]certs.ClientOptions{
		"verify name": {VerifyName: "b.test"},
		"SANs":        {SubjectAltNames: sans},
	} {
		o.FromHost, o.Trust = true, []*certs.TrustBundle{ca.Trust(t)}
		c := newClient(t, o)
		for range 2 {
			_, err := connectAs(t, c, s.addr, "a.test")
			wantReason(t, err, certs.ReasonNameMismatch)
			if got := <-sni; got != "a.test" {
				t.Errorf("%s: sent %q", name, got)
			}
		}
		for range 2 {
			if _, err := connectAs(t, c, s.addr, "b.test"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			<-sni
		}
		if _, err := connectAs(t, c, s.addr, ""); certs.Classify(err) != certs.ReasonLocalConfig {
			t.Errorf("%s: without a host: %v", name, err)
		}
	}
}

// The host is ignored if names are fixed.
func TestHostWithoutFromHost(t *testing.T) {
	ca := certstest.NewCA(t)
	config, sni := anyHost(t, ca, tls.VersionTLS13, "a.test", "b.test")
	s := serveConfig(t, config)
	c := newClient(t, certs.ClientOptions{ServerName: "a.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	for i, host := range []string{"b.test", "a.test", "", "\x00"} {
		state, err := connectAs(t, c, s.addr, host)
		if err != nil || state.DidResume != (i > 0) {
			t.Errorf("%q: resumed %v, error %v", host, state.DidResume, err)
		}
		if got := <-sni; got != "a.test" {
			t.Errorf("%q: sent %q", host, got)
		}
	}
}

// Without SNI the checks are the same, on resumption too. In each case exactly
// one check fails.
func TestNoServerName(t *testing.T) {
	ca := certstest.NewCA(t)
	below := ca.Intermediate(t)
	server := below.Server(t, "upstream.test")
	depth := uint32(0)
	for _, c := range []struct {
		name   string
		change func(*certs.ClientOptions)
		want   certs.Reason
	}{
		{"nothing wrong", func(*certs.ClientOptions) {}, ""},
		{"only a name to verify", func(o *certs.ClientOptions) { o.ServerName, o.VerifyName = "", "upstream.test" }, ""},
		{"only alternative names", func(o *certs.ClientOptions) {
			o.ServerName, o.SubjectAltNames = "", []certs.SAN{{Kind: certs.SANDNS, Value: "upstream.test"}}
		}, ""},
		{"another name", func(o *certs.ClientOptions) { o.ServerName = "other.test" }, certs.ReasonNameMismatch},
		{"another name to verify", func(o *certs.ClientOptions) { o.VerifyName = "other.test" }, certs.ReasonNameMismatch},
		{"other alternative names", func(o *certs.ClientOptions) {
			o.SubjectAltNames = []certs.SAN{{Kind: certs.SANDNS, Value: "other.test"}}
		}, certs.ReasonNameMismatch},
		{"another CA", func(o *certs.ClientOptions) { o.Trust = []*certs.TrustBundle{certstest.NewCA(t).Trust(t)} }, certs.ReasonUnknownCA},
		{"a revoked certificate", func(o *certs.ClientOptions) {
			o.Trust = []*certs.TrustBundle{ca.TrustCRLs(t, ca.CRL(t), below.CRL(t, server.Leaf))}
		}, certs.ReasonRevoked},
		{"another key", func(o *certs.ClientOptions) { o.Pins = [][32]byte{{1}} }, certs.ReasonPinMismatch},
		{"a chain too long", func(o *certs.ClientOptions) { o.VerifyDepth = &depth }, certs.ReasonDepthExceeded},
		{"a time before the validity", func(o *certs.ClientOptions) { o.Time = func() time.Time { return time.Unix(0, 0) } }, certs.ReasonNotYetValid},
		{"a time after the validity", func(o *certs.ClientOptions) {
			o.Time = func() time.Time { return time.Now().Add(20 * 365 * 24 * time.Hour) }
		}, certs.ReasonExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				sni := make(chan string, 10)
				config := tlsConfig(t, server)
				config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { sni <- h.ServerName; return nil, nil }
				s := serveConfig(t, config)
				o := certs.ClientOptions{ServerName: "upstream.test", NoServerName: true, Trust: []*certs.TrustBundle{ca.Trust(t)}, MaxVersion: version}
				c.change(&o)
				client := newClient(t, o)
				for i := range 2 {
					state, err := connect(t, client, s.addr)
					if got := <-sni; got != "" {
						t.Errorf("sent SNI %q", got)
					}
					if c.want != "" {
						wantReason(t, err, c.want)
						continue
					}
					if err != nil || state.DidResume != (i > 0) {
						t.Errorf("connection %d: resumed %v, error %v", i, state.DidResume, err)
					}
				}
			})
		})
	}
}

// Every check is repeated on resumption: a session that was valid fails a day
// later.
func TestNoServerNameOnResumption(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		now := &clock{now: time.Now()}
		mid := intermediate(t, ca, now.now.Add(-time.Hour), now.now.Add(time.Hour))
		config := tlsConfig(t, mid.Server(t, "upstream.test"))
		config.MaxVersion = version
		s := serveConfig(t, config)
		c := newClient(t, certs.ClientOptions{VerifyName: "upstream.test", NoServerName: true, Trust: []*certs.TrustBundle{ca.Trust(t)}, Time: now.Now})
		for i := range 3 {
			if state, err := connect(t, c, s.addr); err != nil || state.DidResume != (i > 0) {
				t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
			}
		}
		now.Add(2 * time.Hour)
		_, err := connect(t, c, s.addr)
		wantReason(t, err, certs.ReasonExpired)
	})
}

func TestConflictingNameOptions(t *testing.T) {
	trust := []*certs.TrustBundle{certstest.NewCA(t).Trust(t)}
	for _, c := range []struct {
		name, field string
		o           certs.ClientOptions
	}{
		{"from the host and not sent", "server_name_source", certs.ClientOptions{FromHost: true, NoServerName: true, Trust: trust}},
		{"not sent and not known", "verify_name", certs.ClientOptions{NoServerName: true, Trust: trust}},
	} {
		_, err := certs.NewClient(c.o)
		wantFault(t, err, c.field)
	}
}

// A host that returns after many others starts without sessions, and never
// gets another host's session.
func TestManyHosts(t *testing.T) {
	ca := certstest.NewCA(t)
	cert := certstest.TLS(t, ca.Server(t, "*.test"))
	s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{cert}})
	c := newClient(t, certs.ClientOptions{FromHost: true, Groups: []tls.CurveID{tls.X25519}, Trust: []*certs.TrustBundle{ca.Trust(t)}})
	host := func(i int) string { return fmt.Sprintf("h%d.test", i) }
	for i := range 258 {
		if state, err := connectAs(t, c, s.addr, host(i)); err != nil || state.DidResume {
			t.Fatalf("host %d: resumed %v, error %v", i, state.DidResume, err)
		}
	}
	if state, err := connectAs(t, c, s.addr, host(257)); err != nil || !state.DidResume {
		t.Errorf("the latest: resumed %v, error %v", state.DidResume, err)
	}
	if state, err := connectAs(t, c, s.addr, host(0)); err != nil || state.DidResume {
		t.Errorf("the first: resumed %v, error %v", state.DidResume, err)
	}
	if n := c.Flush(); n != 256 {
		t.Errorf("sessions of %d hosts were kept", n)
	}
}

func TestKnows(t *testing.T) {
	ca := certstest.NewCA(t)
	cert := certstest.Certificate(t, ca.Server(t, "a.test", "*.b.test", "10.0.0.1"))
	for _, reject := range []bool{true, false} {
		s := newServer(t, certs.ServerOptions{Certificates: []*certs.Certificate{cert}, RejectUnknownSNI: reject})
		for host, known := range map[string]bool{
			"a.test": true, "A.test": true, "x.b.test": true, "10.0.0.1": true,
			"": false, "b.test": false, "x.y.b.test": false, "c.test": false, "10.0.0.2": false,
		} {
			if got := s.Knows(host); got != (known || !reject) {
				t.Errorf("reject %v: knows %q: %v", reject, host, got)
			}
		}
	}
}
