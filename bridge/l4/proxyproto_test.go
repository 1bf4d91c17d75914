package l4_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

func trust(t *testing.T, sources ...string) *proxyproto.Trust {
	t.Helper()
	trust, bad := proxyproto.NewTrust(sources)
	if bad != nil {
		t.Fatal(bad)
	}
	return trust
}

// announcing returns an upstream of one endpoint that receives PROXY headers.
func announcing(e upstream.EndpointOptions, v proxyproto.Version) *upstream.Upstream {
	return upstream.New(upstream.Options{Name: "group", Endpoints: []upstream.EndpointOptions{e}, ProxyProtocol: v})
}

const announcement = "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n"

// The client that a trusted balancer announces is announced to the upstream, before TLS
// on both sides, and logged.
func TestAnnouncedClientIsAnnouncedToTheUpstream(t *testing.T) {
	p := newPKI(t)
	v2 := string(proxyproto.V2.Header(net.TCPAddrFromAddrPort(addrPort("192.0.2.1:12345")), net.TCPAddrFromAddrPort(addrPort("198.51.100.2:443"))))
	for name, test := range map[string]struct {
		in      string
		version proxyproto.Version
		out     string
	}{"1 to 1": {announcement, proxyproto.V1, announcement}, "1 to 2": {announcement, proxyproto.V2, v2}, "2 to 1": {v2, proxyproto.V1, announcement}} {
		t.Run(name, func(t *testing.T) {
			ln := listen(t, "tcp")
			u := announcing(over(t, ln, p.upstream(t, "upstream.test")), test.version)
			table := &l4.Table{ProxyProtocol: trust(t, "127.0.0.1"), TLS: p.listener(t, "gate.test"), Default: to(u)}
			var log logtest.Buffer
			g := open(t, "tcp", l4.Options{Table: func() *l4.Table { return table }, Logger: debugLog(&log)})
			c := g.dial(t, nil)
			c.Send(t, test.in)
			secure := splicetest.NewPeer(c.Raw.Conn, splicetest.Client(p.client("gate.test")))
			handshakes := make(chan error, 1)
			go func() { handshakes <- secure.Handshake() }()

			far := accept(t, ln, nil)
			far.Want(t, test.out)
			farSecure := splicetest.NewPeer(far.Raw.Conn, splicetest.Server(p.server(t, "upstream.test")))
			secure.Send(t, "question")
			farSecure.Want(t, "question")
			if err := <-handshakes; err != nil {
				t.Fatal(err)
			}
			secure.CloseWrite()
			farSecure.WantEnd(t, "", clean)
			farSecure.CloseWrite()
			secure.WantEnd(t, "", clean)
			g.Shutdown(context.Background())
			if !strings.Contains(log.String(), `"client":"192.0.2.1:12345"`) {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

// A client without a header is announced by its own address; so is a balancer that
// connects for itself.
func TestDirectClientIsAnnounced(t *testing.T) {
	for name, in := range map[string]string{"no header expected": "", "LOCAL": string(proxyproto.V2.Header(nil, nil)), "UNKNOWN": "PROXY UNKNOWN\r\n"} {
		t.Run(name, func(t *testing.T) {
			ln := listen(t, "tcp")
			table := &l4.Table{Default: to(announcing(plain(ln), proxyproto.V1))}
			if in != "" {
				table.ProxyProtocol = trust(t, "127.0.0.0/8")
			}
			c := serve(t, table).dial(t, nil)
			c.Send(t, in+"hello")
			own := proxyproto.V1.Header(c.Raw.Conn.LocalAddr(), c.Raw.Conn.RemoteAddr())
			accept(t, ln, nil).Want(t, string(own)+"hello")
		})
	}
	t.Run("unix-domain socket", func(t *testing.T) {
		ln := listen(t, "tcp")
		table := &l4.Table{Default: to(announcing(plain(ln), proxyproto.V1)), ProxyProtocol: trust(t, proxyproto.FromUnix)}
		g := open(t, "unix", l4.Options{Table: func() *l4.Table { return table }})
		c := g.dial(t, nil)
		c.Send(t, announcement+"hello")
		accept(t, ln, nil).Want(t, announcement+"hello")
	})
}

// The listener rejects headers from untrusted peers, and connections from trusted ones
// that do not begin with a header.
func TestConnectionsWithoutAValidHeaderAreClosed(t *testing.T) {
	upstreams := listen(t, "tcp")
	for name, test := range map[string]struct {
		trusted, sent string
		reason        proxyproto.Reason
	}{
		"untrusted":                 {"192.0.2.0/24", "", proxyproto.Untrusted},
		"unannounced":               {"127.0.0.1", "hello, I am a client", proxyproto.Missing},
		"malformed":                 {"127.0.0.1", "PROXY TCP4 client server 1 2\r\n", proxyproto.Malformed},
		"an endless header":         {"127.0.0.1", "PROXY TCP4 " + strings.Repeat("1", 200), proxyproto.Malformed},
		"nothing, and then the end": {"127.0.0.1", "", proxyproto.Closed},
	} {
		t.Run(name, func(t *testing.T) {
			g := serve(t, &l4.Table{ProxyProtocol: trust(t, test.trusted), Default: to(group(plain(upstreams)))})
			if test.reason == proxyproto.Untrusted {
				g.wantRefused(t)
			} else {
				c := g.dial(t, nil)
				c.Send(t, test.sent)
				c.CloseWrite()
				c.WantEnd(t, "", reset)
			}
			eventually(t, "the outcome is counted", func() bool { s := g.Stats(); return s.Open == 0 && s.Unannounced[test.reason] == 1 })
		})
	}
	wantNoConnection(t, upstreams)
}

// A balancer that stalls at any byte of its header is closed in time.
func TestStalledHeaders(t *testing.T) {
	ln := listen(t, "tcp")
	g := serve(t, &l4.Table{ProxyProtocol: trust(t, "127.0.0.1"), HandshakeTimeout: 200 * time.Millisecond, Default: to(group(plain(ln)))})
	v2 := string(proxyproto.V2.Header(net.TCPAddrFromAddrPort(addrPort("192.0.2.1:12345")), net.TCPAddrFromAddrPort(addrPort("198.51.100.2:443"))))
	var clients sync.WaitGroup
	n := 0
	for _, whole := range []string{announcement, v2} {
		for i := range len(whole) {
			n++
			c := g.dial(t, nil)
			clients.Go(func() {
				c.Write([]byte(whole[:i]))
				io.Copy(io.Discard, c)
				c.Close()
			})
		}
	}
	clients.Wait()
	eventually(t, "all connections have ended", func() bool { return g.Stats().Open == 0 })
	if got := g.Stats().Unannounced[proxyproto.Timeout]; got != uint64(n) {
		t.Errorf("%d timed out, want %d", got, n)
	}
}

// Limits per client apply to the announced clients.
func TestLimitPerAnnouncedClient(t *testing.T) {
	ln := listen(t, "tcp")
	echo(t, ln, nil)
	g := serve(t, &l4.Table{ProxyProtocol: trust(t, "127.0.0.1"), MaxPerClient: 1, Default: to(group(plain(ln)))})
	as := func(header string) *peer {
		c := g.dial(t, nil)
		c.Send(t, header)
		return c
	}
	other := strings.Replace(announcement, "192.0.2.1", "192.0.2.9", 1)
	one := as(announcement)
	one.WantEcho(t, "one")
	as(other).WantEcho(t, "another")
	again := as(announcement)
	again.WantEnd(t, "", reset)
	one.CloseWrite()
	one.WantEnd(t, "", clean)
	eventually(t, "the place of the closed connection is free", func() bool { return g.Stats().Open == 1 })
	as(announcement).WantEcho(t, "once more")
	if s := g.Stats(); s.Rejected != 1 {
		t.Errorf("%+v", s)
	}
}

// Shutdown cuts connections whose header has not arrived.
func TestShutdownCutsConnectionsWithoutAHeader(t *testing.T) {
	g := serve(t, &l4.Table{ProxyProtocol: trust(t, "127.0.0.1"), HandshakeTimeout: time.Hour})
	c := g.dial(t, nil)
	c.Send(t, "PROXY ")
	eventually(t, "accepted", func() bool { return g.Stats().Open == 1 })
	g.Shutdown(canceled())
	c.WantEnd(t, "", reset)
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
