package l4_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// through returns the Target of a single upstream that terminates the client's TLS.
func through(u *upstream.Upstream) *l4.Target {
	t := to(u)
	t.Passthrough = true
	return t
}

// bySNI routes each name to its target.
func bySNI(t *testing.T, targets map[string]*l4.Target) *route.Table[*l4.Target] {
	t.Helper()
	var rules []route.Rule[*l4.Target]
	for host, target := range targets {
		rules = append(rules, route.Rule[*l4.Target]{Name: host, Hosts: []string{host}, Value: target})
	}
	table, err := route.New(rules)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// fragments are ways to send a ClientHello.
func fragments(name string) map[string]func([]byte) [][]byte {
	whole := func(r []byte) [][]byte { return [][]byte{r} }
	bytewise := func(r []byte) (out [][]byte) {
		for i := range r {
			out = append(out, r[i:i+1])
		}
		return out
	}
	return map[string]func([]byte) [][]byte{
		"whole":                 whole,
		"segments of a byte":    bytewise,
		"records of a byte":     func(r []byte) [][]byte { return records(r, 1) },
		"records of some bytes": func(r []byte) [][]byte { return records(r, 7) },
		"two records with the name across them": func(r []byte) [][]byte {
			return records(r, strings.Index(string(r), name)+3-5)
		},
		"records of some bytes, byte by byte": func(r []byte) [][]byte {
			return bytewise(bytes.Join(records(r, 300), nil))
		},
	}
}

// The name in a hello selects the upstream, however the hello is fragmented. TLS is
// between client and upstream, so a certificate that the gate does not have reaches the
// client.
func TestPassthroughByName(t *testing.T) {
	p := newPKI(t)
	servers := map[string]string{}
	targets := map[string]*l4.Target{}
	for _, name := range []string{"a.test", "b.test"} {
		ln := listen(t, "tcp")
		echo(t, ln, p.server(t, name))
		servers[name], targets[name] = ln.Addr().String(), through(group(plain(ln)))
	}
	laxer := listen(t, "tcp") // no client may reach this listener
	g := serve(t, &l4.Table{Peek: true, Routes: bySNI(t, targets), Default: through(group(plain(laxer)))})
	for how, cut := range fragments(".test") {
		t.Run(how, func(t *testing.T) {
			for name := range servers {
				raw, err := net.Dial("tcp", g.address)
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				c := tls.Client(&fragmenter{Conn: raw, cut: cut}, p.client(name))
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				if leaf := c.ConnectionState().PeerCertificates[0]; leaf.DNSNames[0] != name {
					t.Errorf("%s gets the certificate of %v", name, leaf.DNSNames)
				}
				far := &peer{Conn: c, Raw: &splicetest.Raw{Conn: raw}}
				text := strings.Repeat("hello", 100_000)
				go far.Write([]byte(text))
				far.Want(t, text)
				c.CloseWrite()
				if _, err := c.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the stream ended with %v", err)
				}
			}
		})
	}
	if s := g.Stats(); s.HandshakesFull+s.HandshakesResumed != 0 {
		t.Errorf("the gate completed a handshake: %+v", s)
	}
}

// A hello of several records, as long as crypto/tls makes them.
func TestPassthroughOfALongHello(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	echo(t, ln, p.server(t, "a.test"))
	g := serve(t, &l4.Table{Peek: true, Routes: bySNI(t, map[string]*l4.Target{"a.test": through(group(plain(ln)))})})
	config := p.client("a.test")
	for range 150 {
		config.NextProtos = append(config.NextProtos, strings.Repeat("x", 200))
	}
	c := g.dial(t, config)
	if err := c.Handshake(); err != nil && !strings.Contains(err.Error(), "no application protocol") {
		t.Fatal(err)
	}
}

// A listener with TLS decrypts the connections of all other upstreams.
func TestPassthroughBesideTLS(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	passed, bridged := listen(t, "tcp"), listen(t, "tcp")
	echo(t, passed, other.server(t, "passed.test"))
	echo(t, bridged, nil)
	g := serve(t, &l4.Table{Peek: true, TLS: p.listener(t, "bridged.test"), Routes: bySNI(t, map[string]*l4.Target{
		"passed.test": through(group(plain(passed))), "bridged.test": to(group(plain(bridged))),
	})})
	for how, cut := range fragments(".test") {
		t.Run(how, func(t *testing.T) {
			for name, trusts := range map[string]pki{"passed.test": other, "bridged.test": p} {
				raw, err := net.Dial("tcp", g.address)
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				c := tls.Client(&fragmenter{Conn: raw, cut: cut}, trusts.client(name))
				if err := c.Handshake(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				far := &peer{Conn: c, Raw: &splicetest.Raw{Conn: raw}}
				far.Send(t, "hello "+name)
				far.Want(t, "hello "+name)
			}
		})
	}
	// Neither side resumes the other's sessions, and a name without a route reaches no
	// upstream.
	c := g.dial(t, &tls.Config{ServerName: "neither.test", InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err) // the listener presents its default certificate
	}
	c.WantEnd(t, "", truncated, clean, reset)
	eventually(t, "the outcome is counted", func() bool { return g.Stats().NoUpstream == 1 })
}

// A client cannot avoid a required certificate by hiding the name in its hello behind
// another name.
func TestPassthroughNeverFallsBackToALaxerUpstream(t *testing.T) {
	p := newPKI(t)
	open, strict := listen(t, "tcp"), listen(t, "tcp")
	echo(t, open, p.server(t, "open.test"))
	server := p.server(t, "strict.test")
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, p.ca.Pool()
	echo(t, strict, server)
	full := hello(t)
	for name, test := range map[string]struct {
		says   []byte
		reason certs.Reason
	}{
		"HTTP":                             {[]byte("GET / HTTP/1.1\r\nHost: strict.test\r\n\r\n"), certs.ReasonNotTLS},
		"no bytes":                         {nil, certs.ReasonHandshakeTimeout},
		"half of a hello":                  {full[:len(full)/2], certs.ReasonHandshakeTimeout},
		"a header of a record":             {full[:5], certs.ReasonHandshakeTimeout},
		"a hello that is followed by more": {append(bytes.Clone(full[:3]), append([]byte{byte((len(full) - 4) >> 8), byte(len(full) - 4)}, append(bytes.Clone(full[5:]), 0)...)...), certs.ReasonNotTLS},
	} {
		t.Run(name, func(t *testing.T) {
			table := &l4.Table{Peek: true, HandshakeTimeout: time.Hour, Default: through(group(plain(open))),
				Routes: bySNI(t, map[string]*l4.Target{"strict.test": through(group(plain(strict)))})}
			if test.reason == certs.ReasonHandshakeTimeout {
				table.HandshakeTimeout = 200 * time.Millisecond
			}
			g := serve(t, table)
			c := g.dial(t, nil)
			_, _ = c.Write(test.says) // fails if the time is up
			if got, how := c.ReadAll(); len(got) > 0 {
				t.Errorf("got %q and a %s end", got, how)
			}
			eventually(t, "the connection has ended", func() bool { return g.Stats().Open == 0 })
			if s := g.Stats(); s.BytesToUpstream != 0 || s.HandshakeFailures[test.reason] != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A client that asks for an unknown name gets a TLS alert.
func TestPassthroughOfAnUnknownName(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	g := serve(t, &l4.Table{Peek: true, Routes: bySNI(t, map[string]*l4.Target{"a.test": through(group(plain(ln)))})})
	err := g.dial(t, p.client("b.test")).Handshake()
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("%v", err)
	}
	eventually(t, "the outcome is counted", func() bool { return g.Stats().NoUpstream == 1 })
}

// The upstream receives the PROXY header before the client's bytes.
func TestPassthroughAnnouncesTheClient(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	u := upstream.New(upstream.Options{Name: "up", ProxyProtocol: proxyproto.V2, Endpoints: []upstream.EndpointOptions{plain(ln)}})
	g := serve(t, &l4.Table{Peek: true, Default: through(u)})
	c := g.dial(t, p.client("a.test"))
	handshakes := make(chan error, 1)
	go func() { handshakes <- c.Handshake() }()
	far := accept(t, ln, nil)
	announced, err := proxyproto.Read(far.Conn)
	if err != nil || announced.Source.String() != c.Raw.LocalAddr().String() {
		t.Fatalf("%v, %v", announced, err)
	}
	secure := tls.Server(far.Conn, p.server(t, "a.test"))
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-handshakes; err != nil {
		t.Error(err)
	}
}

// Shutdown does not wait for the rest of a hello.
func TestShutdownWhileAHelloIsRead(t *testing.T) {
	g := serve(t, &l4.Table{Peek: true, HandshakeTimeout: time.Hour, Default: through(group(plain(listen(t, "tcp"))))})
	c := g.dial(t, nil)
	c.Send(t, string(hello(t)[:100]))
	eventually(t, "the connection is accepted", func() bool { return g.Stats().Open == 1 })
	if err := g.Shutdown(canceled()); err == nil {
		t.Error("Shutdown returned nil although it cut a connection")
	}
	c.WantEnd(t, "", reset)
}

// BenchmarkPassthrough connects, completes a handshake through the gate and closes.
func BenchmarkPassthrough(b *testing.B) {
	p := newPKI(b)
	ln := listen(b, "tcp")
	config := &tls.Config{Certificates: []tls.Certificate{certstest.TLS(b, p.ca.Server(b, "a.test"))}}
	echo(b, ln, config)
	g := open(b, "tcp", l4.Options{Table: func() *l4.Table { return &l4.Table{Peek: true, Default: through(group(plain(ln)))} }})
	client := p.client("a.test")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	b.ReportAllocs()
	for b.Loop() {
		c := g.dial(b, client)
		if err := c.Handshake(); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// An SNI with a trailing dot is rejected as a name, in the peeked ClientHello as in
// a handshake.
func TestATrailingDotIsAnUnrecognizedName(t *testing.T) {
	g := serve(t, &l4.Table{Peek: true, Default: through(group(plain(listen(t, "tcp"))))})
	full := hello(t)
	name := bytes.Index(full, []byte("gate.test"))
	if name < 0 {
		t.Fatal("the hello names another host")
	}
	full[name+len("gate.tes")] = '.'
	c := g.dial(t, nil)
	c.Send(t, string(full))
	if got, _ := c.ReadAll(); string(got) != "\x15\x03\x01\x00\x02\x02\x70" {
		t.Errorf("got %q, want the alert unrecognized_name", got)
	}
	if n := g.Stats().HandshakeFailures[certs.ReasonUnrecognizedName]; n != 1 {
		t.Errorf("%v", g.Stats().HandshakeFailures)
	}
}
