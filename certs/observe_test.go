package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func observe(t testing.TB, c *certs.Client, addr, host string) (*certs.Observation, error) {
	t.Helper()
	return observeOn(t, c, dialRaw(t, "tcp", addr), host)
}

// observePatiently observes a server that sends a ticket or an alert after the handshake,
// however late it comes.
func observePatiently(t testing.TB, c *certs.Client, addr string) (*certs.Observation, error) {
	t.Helper()
	return observeOn(t, c, patientConn{dialRaw(t, "tcp", addr)}, "")
}

// A patientConn extends each wait for data by a minute.
type patientConn struct{ net.Conn }

func (c patientConn) SetReadDeadline(at time.Time) error {
	if at.After(time.Now()) {
		at = at.Add(time.Minute)
	}
	return c.Conn.SetReadDeadline(at)
}

func dialRaw(t testing.TB, network, addr string) net.Conn {
	t.Helper()
	raw, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return raw
}

func observeOn(t testing.TB, c *certs.Client, raw net.Conn, host string) (*certs.Observation, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen, err := c.Observe(ctx, raw, host)
	if (err == nil) != (seen.Conn != nil) || seen.Conn == nil && seen.State.HandshakeComplete {
		t.Errorf("connection %v, state %v, error %v", seen.Conn, seen.State.HandshakeComplete, err)
	}
	return seen, err
}

func TestObserve(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		below := ca.Intermediate(t)
		server, o := mutual(t, ca)
		server.Certificates[0] = certstest.TLS(t, below.Server(t, "upstream.test"))
		server.NextProtos, o.NextProtos = []string{"h2"}, []string{"h2", "http/1.1"}
		o.MaxVersion, o.Groups = version, []tls.CurveID{tls.X25519}
		s, c := serveConfig(t, server), newClient(t, o)
		seen, err := observePatiently(t, c, s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if len(seen.Chain) != 2 || !seen.Chain[1].Equal(below.Certificate()) {
			t.Errorf("a chain of %d", len(seen.Chain))
		}
		if seen.ServerName != "upstream.test" || !slices.Equal(seen.VerifyNames, []string{"upstream.test"}) {
			t.Errorf("names %q, %q", seen.ServerName, seen.VerifyNames)
		}
		if st := seen.State; !st.HandshakeComplete || st.Version != version || st.NegotiatedProtocol != "h2" || st.CurveID != tls.X25519 || st.DidResume {
			t.Errorf("state %+v", st)
		}
		if !seen.Requested || !seen.Sent || !slices.Equal(seen.AcceptableCAs, []string{ca.Certificate().Subject.String()}) {
			t.Errorf("requested %v, sent %v, CAs %q", seen.Requested, seen.Sent, seen.AcceptableCAs)
		}
		if !seen.TicketOffered || seen.Alert != nil || len(seen.Failures) > 0 || seen.Elapsed <= 0 {
			t.Errorf("ticket %v, alert %v, failures %v, took %v", seen.TicketOffered, seen.Alert, seen.Failures, seen.Elapsed)
		}
		if err := seen.Conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Observe neither uses nor keeps a session, and counts nothing.
func TestObserveDoesNotTouchSessions(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion = version
		addr, c := serveAtOnce(t, server), newClient(t, o)
		for range 2 {
			if seen, err := observePatiently(t, c, addr); err != nil || !seen.TicketOffered {
				t.Fatal(seen, err)
			}
		}
		wantStats(t, c, 0, nil)
		times(t, 1, c, addr)
		wantStats(t, c, 0, full{certs.FullNoTicket: 1})
		if seen, err := observe(t, c, addr, ""); err != nil || seen.State.DidResume {
			t.Errorf("resumed %v, error %v", seen.State.DidResume, err)
		}
		times(t, 1, c, addr)
		wantStats(t, c, 1, full{certs.FullNoTicket: 1})
		if n := c.Flush(); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

func TestObserveFailures(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	for _, c := range []struct {
		name   string
		change func(*tls.Config, *certs.ClientOptions)
		want   certs.Reason
		chain  int
		fails  []certs.Reason
	}{
		{"another name", func(_ *tls.Config, o *certs.ClientOptions) { o.VerifyName = "x.test" }, certs.ReasonNameMismatch, 1, []certs.Reason{certs.ReasonNameMismatch}},
		{"everything wrong", func(_ *tls.Config, o *certs.ClientOptions) {
			o.VerifyName, o.Trust = "x.test", []*certs.TrustBundle{other.Trust(t)}
		}, certs.ReasonUnknownCA, 1, []certs.Reason{certs.ReasonUnknownCA, certs.ReasonNameMismatch}},
		{"no protocol version", func(s *tls.Config, o *certs.ClientOptions) { s.MaxVersion = o.MinVersion - 1 }, certs.ReasonProtocolVersion, 0, nil},
		{"no group", func(s *tls.Config, o *certs.ClientOptions) {
			s.CurvePreferences, o.Groups = []tls.CurveID{tls.CurveP256}, []tls.CurveID{tls.CurveP521}
		}, certs.ReasonNoCommonGroup, 0, nil},
		{"no application protocol", func(_ *tls.Config, o *certs.ClientOptions) {
			o.NextProtos, o.RequireALPN = []string{"h2"}, true
		}, certs.ReasonALPNMismatch, 1, nil},
		{"an unknown name", func(s *tls.Config, _ *certs.ClientOptions) {
			s.Certificates, s.GetCertificate = nil, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
		}, certs.ReasonUnrecognizedName, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				server, o := mutual(t, ca)
				o.MinVersion, o.MaxVersion = version, version
				c.change(server, &o)
				s := serveConfig(t, server)
				client := newClient(t, o)
				seen, err := observe(t, client, s.addr, "")
				wantReason(t, err, c.want)
				_, want := connect(t, client, s.addr)
				if want == nil || want.Error() != err.Error() {
					t.Errorf("Observe fails with %v, Handshake with %v", err, want)
				}
				var fails []certs.Reason
				for _, f := range seen.Failures {
					fails = append(fails, f.Reason)
				}
				if len(seen.Chain) != c.chain || !slices.Equal(fails, c.fails) || seen.ServerName != "upstream.test" {
					t.Errorf("a chain of %d, failures %v", len(seen.Chain), fails)
				}
				if seen.Elapsed <= 0 {
					t.Error("Elapsed is not positive")
				}
			})
		})
	}
}

// A TLS 1.3 server verifies the client's certificate after the handshake.
func TestObserveSeesLateAlerts(t *testing.T) {
	ca := certstest.NewCA(t)
	stranger := certstest.Certificate(t, certstest.NewCA(t).Client(t, "stranger"))
	for _, c := range []struct {
		name string
		cert *certs.Certificate
		want certs.Reason
	}{
		{"no certificate", nil, certs.ReasonClientCertificateRequired},
		{"a certificate of another CA", stranger, certs.ReasonClientCertificateRejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				server, o := mutual(t, ca)
				o.Certificate, o.MaxVersion = c.cert, version
				s := serveConfig(t, server)
				seen, err := observePatiently(t, newClient(t, o), s.addr)
				if version == tls.VersionTLS13 {
					if err != nil || seen.TicketOffered {
						t.Fatalf("ticket %v, error %v", seen.TicketOffered, err)
					}
					err = seen.Alert
				}
				wantReason(t, err, c.want)
				if !seen.Requested || seen.Sent != (c.cert != nil) || len(seen.AcceptableCAs) != 1 || len(seen.Chain) != 1 {
					t.Errorf("requested %v, sent %v, CAs %q, chain %d", seen.Requested, seen.Sent, seen.AcceptableCAs, len(seen.Chain))
				}
			})
		})
	}
}

func TestObserveTickets(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion = version
		s := serveConfig(t, server)
		o.NoSessionReuse = true
		if seen, err := observe(t, newClient(t, o), s.addr, ""); err != nil || seen.TicketOffered {
			t.Errorf("without reuse: ticket %v, error %v", seen.TicketOffered, err)
		}
		o.NoSessionReuse = false
		none := server.Clone()
		none.SessionTicketsDisabled = true
		if seen, err := observe(t, newClient(t, o), serveConfig(t, none).addr, ""); err != nil || seen.TicketOffered || seen.Alert != nil {
			t.Errorf("from a server without tickets: ticket %v, alert %v, error %v", seen.TicketOffered, seen.Alert, err)
		}
	})
}

// A waitingConn signals when its reader is about to wait with its own
// deadline.
type waitingConn struct {
	net.Conn
	wait func()
}

func (c waitingConn) SetReadDeadline(at time.Time) error {
	err := c.Conn.SetReadDeadline(at)
	c.wait()
	return err
}

// Observe waits for a silent server only until the context ends. The connection
// remains usable.
func TestObserveWaitsNoLongerThanItsContext(t *testing.T) {
	ca := certstest.NewCA(t)
	config := tlsConfig(t, ca.Server(t, "upstream.test"))
	config.SessionTicketsDisabled = true
	echo := make(chan error, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		raw, err := l.Accept()
		if err != nil {
			echo <- err
			return
		}
		c := tls.Server(raw, config)
		_, err = io.Copy(c, c)
		c.Close()
		echo <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	seen, err := c.Observe(ctx, waitingConn{raw, cancel}, "")
	if err != nil || seen.Alert != nil || seen.TicketOffered {
		t.Fatal(seen, err)
	}
	raw.SetDeadline(time.Now().Add(time.Minute))
	text := []byte("hello")
	if _, err := seen.Conn.Write(text); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(seen.Conn, text); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
	seen.Conn.Close()
	if err := <-echo; err != nil {
		t.Error(err)
	}
}

// Under VerifyReportOnly, Observe returns the failures. It neither calls Report nor
// counts them.
func TestObserveReportOnly(t *testing.T) {
	ca := certstest.NewCA(t)
	s := serveConfig(t, tlsConfig(t, ca.Server(t, "other.test")))
	c := newClient(t, certs.ClientOptions{
		ServerName: "upstream.test", Trust: []*certs.TrustBundle{certstest.NewCA(t).Trust(t)}, Verification: certs.VerifyReportOnly,
		Report: func(e *certs.VerifyError) { t.Errorf("reported %v", e) },
	})
	seen, err := observe(t, c, s.addr, "")
	if err != nil || len(seen.Failures) != 2 {
		t.Errorf("failures %v, error %v", seen.Failures, err)
	}
	if got := c.SessionStats(); len(got.Reported) > 0 {
		t.Errorf("counted %v", got.Reported)
	}
}

func TestObserveNames(t *testing.T) {
	ca := certstest.NewCA(t)
	addr := serveAtOnce(t, tlsConfig(t, ca.Server(t, "a.test", "127.0.0.1")))
	sans, err := certs.ParseSANs([]string{"x.test", "DNS:a.test"})
	if err != nil {
		t.Fatal(err)
	}
	trust := []*certs.TrustBundle{ca.Trust(t)}
	for _, c := range []struct {
		name, host, sent, verified string
		o                          certs.ClientOptions
	}{
		{"fixed", "b.test", "a.test", "a.test", certs.ClientOptions{ServerName: "a.test"}},
		{"two names", "", "b.test", "a.test", certs.ClientOptions{ServerName: "b.test", VerifyName: "a.test"}},
		{"an address", "", "", "127.0.0.1", certs.ClientOptions{ServerName: "127.0.0.1"}},
		{"no SNI", "", "", "a.test", certs.ClientOptions{ServerName: "a.test", NoServerName: true}},
		{"from the host", "A.test", "a.test", "a.test", certs.ClientOptions{FromHost: true}},
		{"alternative names", "", "b.test", "DNS:x.test DNS:a.test", certs.ClientOptions{ServerName: "b.test", SubjectAltNames: sans}},
		{"nothing verified", "", "b.test", "b.test", certs.ClientOptions{ServerName: "b.test", Verification: certs.VerifyInsecureSkip}},
	} {
		c.o.Trust = trust
		seen, err := observe(t, newClient(t, c.o), addr, c.host)
		if err != nil || seen.ServerName != c.sent || strings.Join(seen.VerifyNames, " ") != c.verified {
			t.Errorf("%s: sent %q, verified %q, error %v", c.name, seen.ServerName, seen.VerifyNames, err)
		}
	}
}

// Observe bounds and escapes the names of CAs in a certificate request.
func TestObserveHostileRequests(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := certstest.NewCA(t)
		pool := x509.NewCertPool()
		pool.AddCert(&x509.Certificate{Raw: []byte{1}, RawSubject: bytes.Repeat([]byte{0xff}, 10)})
		for i := range 150 {
			self := selfSigned(t, func(c *x509.Certificate) {
				c.Subject = pkix.Name{CommonName: strings.Repeat("\x1b[31m\n", 30), SerialNumber: strings.Repeat("x", i)}
			})
			pool.AddCert(self.Leaf)
		}
		server, o := mutual(t, ca)
		server.ClientAuth, server.ClientCAs, o.MaxVersion = tls.RequestClientCert, pool, version
		seen, err := observe(t, newClient(t, o), serveConfig(t, server).addr, "")
		if err != nil {
			t.Fatal(err)
		}
		if len(seen.AcceptableCAs) != 100 || seen.AcceptableCAs[0] != "(not a distinguished name)" {
			t.Errorf("%d CAs, the first %q", len(seen.AcceptableCAs), seen.AcceptableCAs[0])
		}
		for _, name := range seen.AcceptableCAs {
			checkText(t, name)
		}
	})
}

func TestOptionsAreACopy(t *testing.T) {
	ca := certstest.NewCA(t)
	given := certs.ClientOptions{
		Certificate: certstest.Certificate(t, ca.Client(t, "c")), Trust: []*certs.TrustBundle{ca.Trust(t)}, ServerName: "a.test",
		NextProtos: []string{"h2"}, Groups: []tls.CurveID{tls.X25519}, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		Pins: [][32]byte{{1}}, SubjectAltNames: []certs.SAN{{Kind: certs.SANDNS, Value: "a.test"}},
	}
	c := newClient(t, given)
	o := c.Options()
	if o.VerifyName != "" || o.MinVersion != 0 || o.ServerName != "a.test" || o.Certificate != c.Certificate() || o.Time != nil {
		t.Errorf("options %+v", o)
	}
	o.NextProtos[0], o.Groups[0], o.CipherSuites[0], o.Pins[0], o.SubjectAltNames[0].Value, o.Trust[0] = "x", 1, 1, [32]byte{}, "x", nil
	if again := c.Options(); again.NextProtos[0] != "h2" || again.Groups[0] != tls.X25519 || again.CipherSuites[0] == 1 ||
		again.Pins[0] != [32]byte{1} || again.SubjectAltNames[0].Value != "a.test" || again.Trust[0] == nil {
		t.Errorf("the options were changed: %+v", again)
	}
	o = c.Options()
	o.MaxVersion = tls.VersionTLS11 // a Client can be made with one setting changed
	newClient(t, o)
	if newClient(t, certs.ClientOptions{ServerName: "a", Trust: given.Trust}).Certificate() != nil {
		t.Error("Certificate returned a certificate that was not set")
	}
}

// HandshakeOnce returns an ordinary connection, but uses no sessions and counts
// nothing.
func TestHandshakeOnce(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion = version
		addr, c := serveAtOnce(t, server), newClient(t, o)
		handshakeOnce := func() {
			t.Helper()
			raw, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			raw.SetDeadline(time.Now().Add(time.Minute))
			conn, err := c.HandshakeOnce(t.Context(), raw, "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil || conn.ConnectionState().DidResume {
				t.Errorf("the first byte: %v, resumed: %v", err, conn.ConnectionState().DidResume)
			}
		}
		handshakeOnce()
		wantStats(t, c, 0, nil)
		times(t, 1, c, addr)
		handshakeOnce()
		times(t, 1, c, addr) // resumes the session
		wantStats(t, c, 1, full{certs.FullNoTicket: 1})

		o.VerifyName = "x.test"
		c = newClient(t, o)
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_, err = c.HandshakeOnce(t.Context(), raw, "")
		wantReason(t, err, certs.ReasonNameMismatch)
	})
}
