package l4_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A handshake holds the facts that an upstream saw in a handshake.
type handshake struct {
	name, client string // SNI, and common name of the client certificate
	resumed      bool
}

// A recorder is an upstream that echoes and remembers its handshakes.
type recorder struct {
	ln   net.Listener
	seen chan handshake
}

func newRecorder(t *testing.T, config *tls.Config) *recorder {
	w := &recorder{ln: listen(t, "tcp"), seen: make(chan handshake, 10000)}
	config = config.Clone()
	config.VerifyConnection = func(s tls.ConnectionState) error {
		h := handshake{name: s.ServerName, resumed: s.DidResume}
		if len(s.PeerCertificates) > 0 {
			h.client = s.PeerCertificates[0].Subject.CommonName
		}
		w.seen <- h
		return nil
	}
	echo(t, w.ln, config)
	return w
}

// A rotating gate serves one upstream in successive revisions.
type rotating struct {
	*gate
	*recorder
	table   atomic.Pointer[l4.Table]
	tracker *upstream.Tracker
	live    *upstream.Upstream
	client  *certs.Client
	log     logtest.Buffer
}

func newRotating(t *testing.T, w *recorder) *rotating {
	r := &rotating{recorder: w, tracker: upstream.NewTracker()}
	r.gate = open(t, "tcp", l4.Options{Table: r.table.Load, Logger: debugLog(&r.log)})
	return r
}

// revise replaces the upstream with a new revision.
func (r *rotating) revise(t *testing.T, o certs.ClientOptions) {
	t.Helper()
	o.Replaces = r.client
	endpoint := over(t, r.ln, o)
	r.client = endpoint.Stream
	r.live = upstream.New(upstream.Options{Name: "up", Tracker: r.tracker, Endpoints: []upstream.EndpointOptions{endpoint}})
	r.table.Store(&l4.Table{Default: to(r.live)})
}

// traffic keeps connections open, sends over them, and opens short ones until stopped.
// Then it returns the connections.
func (r *rotating) traffic(t *testing.T, conns int) (stop func() []*peer) {
	var all sync.WaitGroup
	done := make(chan struct{})
	var rounds atomic.Int64
	until := func(round func() error) {
		all.Go(func() {
			for {
				if err := round(); err != nil {
					t.Errorf("after %d rounds: %v", rounds.Load(), err)
					return
				}
				rounds.Add(1)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	var open []*peer
	for range conns {
		c := r.dial(t, nil)
		c.WantEcho(t, "first")
		open = append(open, c)
		until(func() error { return roundTrip(c) })
	}
	until(func() error {
		raw, err := net.Dial("tcp", r.address)
		if err != nil {
			return err
		}
		defer raw.Close()
		return roundTrip(raw)
	})
	return func() []*peer {
		at := rounds.Load()
		eventually(t, "traffic continues", func() bool { return rounds.Load() > at+int64(conns)*20 || t.Failed() })
		close(done)
		all.Wait()
		return open
	}
}

func roundTrip(c net.Conn) error {
	b := []byte("a line of some length\n")
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

func TestRotationOfTheClientCertificateUnderTraffic(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			p := newPKI(t)
			config := p.server(t, "up.test")
			config.ClientAuth, config.ClientCAs, config.MaxVersion = tls.RequireAndVerifyClientCert, p.ca.Pool(), version
			r := newRotating(t, newRecorder(t, config))
			before, after := certstest.Certificate(t, p.ca.Client(t, "before")), certstest.Certificate(t, p.ca.Client(t, "after"))
			o := p.upstream(t, "up.test")
			o.Certificate = before
			r.revise(t, o)
			stop := r.traffic(t, 4)
			first := r.live
			eventually(t, "sessions are resumed", func() bool { return first.Status()[0].HandshakesResumed > 3 })

			o.Certificate = after
			r.revise(t, o)
			eventually(t, "the new certificate is used", func() bool { return r.live.Status()[0].HandshakesFull > 0 })
			old := stop()
			for len(r.seen) > 0 {
				<-r.seen
			}
			var young []*peer
			for range 3 {
				c := r.dial(t, nil)
				c.WantEcho(t, "x")
				young = append(young, c)
				if s := <-r.seen; s.client != "after" {
					t.Errorf("after the rotation the upstream sees %+v", s)
				}
			}
			if full := r.live.Status()[0].Full; full[certs.FullCredentialsChanged] == 0 {
				t.Errorf("full handshakes for %v", full)
			}
			counts := func(want map[string]int) func() bool {
				return func() bool { return maps.Equal(r.tracker.Counts(), want) }
			}
			eventually(t, "connections are counted by certificate", counts(map[string]int{before.Fingerprint(): 4, after.Fingerprint(): 3}))

			if n := r.tracker.Drain(before.Fingerprint(), false, time.Hour); n != 4 {
				t.Errorf("drains %d", n)
			}
			for _, c := range old {
				c.WantEcho(t, "until the period ends")
			}
			r.tracker.Drain(before.Fingerprint(), false, 0)
			for _, c := range old {
				c.WantEnd(t, "", reset)
			}
			for _, c := range young {
				c.WantEcho(t, "continues")
			}
			eventually(t, "the drained connections have ended", counts(map[string]int{after.Fingerprint(): 3}))
			eventually(t, "the log has the line", func() bool { return strings.Count(r.log.String(), `"ended":"drained"`) == 4 })
		})
	}
}

// New handshakes are verified with the new trust, and sessions of the old one are not
// resumed. Open connections continue.
func TestRotationOfTrustUnderTraffic(t *testing.T) {
	for name, test := range map[string]struct {
		trust  func(p pki, leaf *x509.Certificate) *certs.TrustBundle
		reason certs.Reason
	}{
		"another CA":   {func(pki, *x509.Certificate) *certs.TrustBundle { return certstest.NewCA(t).Trust(t) }, certs.ReasonUnknownCA},
		"a revocation": {func(p pki, leaf *x509.Certificate) *certs.TrustBundle { return p.ca.TrustCRLs(t, p.ca.CRL(t, leaf)) }, certs.ReasonRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPKI(t)
			config := p.server(t, "up.test")
			leaf, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			r := newRotating(t, newRecorder(t, config))
			o := p.upstream(t, "up.test")
			r.revise(t, o)
			c := r.dial(t, nil)
			c.WantEcho(t, "x")
			for range 2 {
				short := r.dial(t, nil)
				short.WantEcho(t, "x")
				short.Close()
			}
			if s := r.live.Status()[0]; s.HandshakesResumed == 0 {
				t.Error("there is no session to take along")
			}
			o.Trust = []*certs.TrustBundle{test.trust(p, leaf)}
			r.revise(t, o)
			for range 3 {
				r.wantRefused(t)
			}
			c.WantEcho(t, "continues")
			eventually(t, "the refusals are counted", func() bool { return r.live.Status()[0].Failures[test.reason] == 3 })
			if s := r.live.Status()[0]; s.Made != 0 || s.Health != upstream.Down {
				t.Errorf("%+v", s)
			}
		})
	}
}

// The server would resume any of these sessions, so only the client keeps them apart.
func TestSessionsNeverCrossUpstreamsThatShareAnAddress(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			p := newPKI(t)
			config := p.server(t, "a.test", "b.test")
			config.ClientAuth, config.ClientCAs, config.MaxVersion = tls.RequireAndVerifyClientCert, p.ca.Pool(), version
			w := newRecorder(t, config)
			gates := map[handshake]*gate{}
			for _, s := range []handshake{{name: "a.test", client: "x"}, {name: "a.test", client: "y"}, {name: "b.test", client: "x"}} {
				o := p.upstream(t, s.name)
				o.Certificate = certstest.Certificate(t, p.ca.Client(t, s.client))
				gates[s] = serve(t, &l4.Table{Default: to(group(over(t, w.ln, o)))})
			}
			for i := range 3 {
				for want, g := range gates {
					c := g.dial(t, nil)
					c.WantEcho(t, "x")
					c.Close()
					want.resumed = i > 0
					if got := <-w.seen; got != want {
						t.Errorf("round %d: the upstream saw %+v, want %+v", i, got, want)
					}
				}
			}
		})
	}
}

func TestServerNameFromTheClientsSNI(t *testing.T) {
	p := newPKI(t)
	w := newRecorder(t, p.server(t, "a.test", "b.test"))
	u := group(over(t, w.ln, certs.ClientOptions{FromHost: true, Trust: []*certs.TrustBundle{p.ca.Trust(t)}}))
	g := serve(t, &l4.Table{TLS: p.listener(t, "a.test", "b.test", "other.test"), Default: to(u)})
	for i, want := range []handshake{
		{name: "a.test"}, {name: "b.test"}, {name: "a.test", resumed: true}, {name: "b.test", resumed: true},
	} {
		c := g.dial(t, p.client(strings.ToUpper(want.name)))
		c.WantEcho(t, "x")
		c.Close()
		if got := <-w.seen; got != want {
			t.Errorf("connection %d: the upstream saw %+v, want %+v", i, got, want)
		}
	}

	noName := p.client("")
	noName.InsecureSkipVerify = true
	for _, config := range []*tls.Config{noName, p.client("other.test")} {
		c := g.dial(t, config)
		c.WantEnd(t, "", reset)
	}
	s := u.Status()[0]
	if s.Failures[certs.ReasonLocalConfig] != 1 || s.Failures[certs.ReasonNameMismatch] != 1 || s.Health != upstream.Up {
		t.Errorf("%+v", s)
	}
}

// A plaintext client sends no host, so it does not match a route with a host.
func TestServerNameFromHostNeedsAHost(t *testing.T) {
	p := newPKI(t)
	w := newRecorder(t, p.server(t, "a.test"))
	u := group(over(t, w.ln, certs.ClientOptions{FromHost: true, Trust: []*certs.TrustBundle{p.ca.Trust(t)}}))
	var log logtest.Buffer
	table := &l4.Table{Default: to(u)}
	g := open(t, "tcp", l4.Options{Table: func() *l4.Table { return table }, Logger: debugLog(&log)})
	g.wantRefused(t)
	g.Shutdown(t.Context())
	if s := u.Status()[0]; s.Failures[certs.ReasonLocalConfig] != 1 || s.Connects.Count != 0 {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(log.String(), `"reason":"LOCAL_CONFIG"`) {
		t.Errorf("logged %s", log.String())
	}
}

// After a late refusal the endpoint stays down until it sends a byte.
func TestReplyMakesAnEndpointHealthy(t *testing.T) {
	ln := listen(t, "tcp")
	u := group(plain(ln))
	g := serve(t, &l4.Table{Default: to(u)})
	u.Endpoints()[0].NoteFailure(&certs.VerifyError{Reason: certs.ReasonClientCertificateRejected})
	c := g.dial(t, nil)
	far := accept(t, ln, nil)
	c.Send(t, "question")
	far.Want(t, "question")
	if h := u.Status()[0].Health; h != upstream.Down {
		t.Errorf("unanswered: %v", h)
	}
	far.Send(t, "answer")
	c.Want(t, "answer")
	eventually(t, "the endpoint is up", func() bool { return u.Status()[0].Health == upstream.Up })
}
