package l4_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A record is a record of the access log.
type record map[string]any

// recorded starts a Server with an access log; end waits until its connections have
// ended, and returns their records.
func recorded(t *testing.T, o l4.Options) (g *gate, end func() []record) {
	t.Helper()
	var out logtest.Buffer
	log, err := accesslog.Open(accesslog.Options{Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	o.Listener, o.AccessLog = "test", log
	g = open(t, "tcp", o)
	t.Cleanup(func() { _ = log.Close(t.Context()) })
	return g, func() []record {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := log.Close(ctx); err != nil {
			t.Error(err)
		}
		var all []record
		for line := range strings.Lines(out.String()) {
			var r record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			all = append(all, r)
		}
		return all
	}
}

func fixed(table *l4.Table) func() *l4.Table { return func() *l4.Table { return table } }

// want checks a record: fields by their values (nil: absent), and the fields in
// positive for being above 0.
func (r record) want(t *testing.T, want record, positive ...string) {
	t.Helper()
	for key, value := range want {
		if n, ok := value.(int); ok {
			value = float64(n)
		}
		if got := r[key]; got != value {
			t.Errorf("%s is %v, want %v", key, got, value)
		}
	}
	for _, key := range positive {
		if n, _ := r[key].(float64); n <= 0 {
			t.Errorf("%s is %v", key, r[key])
		}
	}
	if t.Failed() {
		t.Logf("the record: %v", r)
	}
}

func one(t *testing.T, all []record) record {
	t.Helper()
	if len(all) != 1 {
		t.Fatalf("%d records, want 1: %v", len(all), all)
	}
	return all[0]
}

// Two connections use mutual TLS on both sides. The second resumes its
// sessions.
func TestRecordOfATLSConnection(t *testing.T) {
	p := newPKI(t)
	alice := p.ca.Client(t, "alice")
	listener, err := certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, p.ca.Server(t, "front.test"))},
		ClientAuth:   certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{p.ca.Trust(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	back := listen(t, "tcp")
	settings := p.server(t, "back.test")
	settings.MaxVersion, settings.CurvePreferences = tls.VersionTLS12, []tls.CurveID{tls.CurveP256}
	echo(t, back, settings)
	var counted upstream.Latencies
	u := upstream.New(upstream.Options{Name: "group", Latencies: &counted, Endpoints: []upstream.EndpointOptions{over(t, back, p.upstream(t, "back.test"))}})
	target := to(u)
	target.Route = "by-default"
	g, end := recorded(t, l4.Options{Table: fixed(&l4.Table{TLS: certs.NewServers(listener), Default: target})})
	config := p.client("front.test")
	config.Certificates = []tls.Certificate{certstest.TLS(t, alice)}
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	var ports []int
	for range 2 {
		c := g.dial(t, config)
		c.Send(t, "hello")
		c.Want(t, "hello")
		ports = append(ports, c.Raw.LocalAddr().(*net.TCPAddr).Port)
		_ = c.CloseWrite()
		c.WantEnd(t, "", clean)
		eventually(t, "its record is written", func() bool { return g.Stats().Open == 0 }) // keeps the records in order
	}
	all := end()
	if len(all) != 2 {
		t.Fatalf("records %v", all)
	}
	leaf := certstest.Certificate(t, alice)
	for i, resumed := range []bool{false, true} {
		all[i].want(t, record{
			"kind": "connection", "listener": "test", "client": "127.0.0.1", "client_port": ports[i], "peer": nil,
			"route": "by-default", "upstream": "group", "endpoint": back.Addr().String(), "attempts": 1, "upstream_reused": nil,
			"bytes_from_client": 5, "bytes_to_client": 5, "ended": "closed", "reason": nil,
			"server_name": "front.test", "client_subject": "CN=alice", "client_fingerprint": leaf.Fingerprint(),
			"tls_version": "TLS 1.3", "tls_cipher": "TLS_AES_128_GCM_SHA256", "tls_group": "X25519MLKEM768", "tls_resumed": resumed,
			"upstream_tls_version": "TLS 1.2", "upstream_tls_cipher": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "upstream_tls_resumed": resumed,
		}, "duration_ms", "handshake_ms", "upstream_connect_ms", "upstream_handshake_ms", "first_byte_ms")
	}
	if at, err := time.Parse("2006-01-02T15:04:05.000Z", all[0]["time"].(string)); err != nil || time.Since(at) > time.Hour {
		t.Errorf("time %v: %v", all[0]["time"], err)
	}
	s := g.Stats()
	if s.Durations.Count() != 2 || s.FirstBytes.Count() != 2 || s.Durations.Total < s.FirstBytes.Total || s.FirstBytes.Total <= 0 {
		t.Errorf("durations %+v, first bytes %+v", s.Durations, s.FirstBytes)
	}
	if n := counted.Handshake.Counts(); n.Count() != 2 {
		t.Errorf("%d handshakes are counted", n.Count())
	}
}

func TestRecordOfAFailedConnection(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	closed := upstream.EndpointOptions{Network: "tcp", Address: sockettest.Free(t)}
	stranger := listen(t, "tcp")
	echo(t, stranger, newPKI(t).server(t, "back.test"))
	for _, c := range []struct {
		name   string
		table  *l4.Table
		client func(t *testing.T, c *peer)
		want   record
	}{
		{"no listener", &l4.Table{Default: to(group(closed))}, nil,
			record{"ended": "upstream unreachable", "reason": "CONNECT_REFUSED", "upstream": "group", "endpoint": closed.Address, "attempts": 1, "first_byte_ms": nil}},
		{"an upstream with a certificate of another CA", &l4.Table{Default: to(group(over(t, stranger, p.upstream(t, "back.test"))))}, nil,
			record{"ended": "upstream unreachable", "reason": "UNKNOWN_CA", "endpoint": stranger.Addr().String(), "attempts": 1}},
		{"no listener, then a certificate of another CA", &l4.Table{Default: to(group(closed, over(t, stranger, p.upstream(t, "back.test"))))}, nil,
			record{"ended": "upstream unreachable", "attempts": 2}},
		{"no endpoint", &l4.Table{Default: to(group())}, nil,
			record{"ended": "upstream unreachable", "reason": "NO_ENDPOINT", "upstream": "group", "endpoint": nil, "attempts": nil}},
		{"no route", &l4.Table{}, nil,
			record{"ended": "no upstream", "reason": nil, "upstream": nil, "attempts": nil, "bytes_to_client": 0}},
		{"no TLS", &l4.Table{TLS: p.listener(t, "front.test")}, func(t *testing.T, c *peer) { c.Send(t, "GET / HTTP/1.1\r\n\r\n") },
			record{"ended": "handshake failed", "reason": "NOT_TLS", "tls_version": nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, end := recorded(t, l4.Options{Table: fixed(c.table)})
			raw, err := net.Dial(g.network, g.address)
			if err == nil {
				defer raw.Close()
				if c.client != nil {
					c.client(t, splicetest.NewPeer(raw, nil))
				}
				_, _ = io.Copy(io.Discard, raw)
			} else if !errors.Is(err, syscall.ECONNRESET) { // the reset may arrive before connect returns
				t.Fatal(err)
			}
			eventually(t, "the connection has ended", func() bool { s := g.Stats(); return s.Accepted == 1 && s.Open == 0 })
			r := one(t, end())
			c.want["client"] = "127.0.0.1"
			r.want(t, c.want, "duration_ms", "client_port")
		})
	}
}

func TestRecordShowsHowAConnectionEnded(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(client, back *peer)
		want record
	}{
		{"the client resets", func(client, _ *peer) { client.Reset() }, record{"ended": "client reset", "reason": "CLIENT_RESET"}},
		{"the upstream resets", func(_, back *peer) { back.Reset() }, record{"ended": "upstream reset", "reason": "UPSTREAM_RESET"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ln := listen(t, "tcp")
			g, end := recorded(t, l4.Options{Table: fixed(&l4.Table{Default: to(group(plain(ln)))})})
			client := g.dial(t, nil)
			back := accept(t, ln, nil)
			client.Send(t, "ping")
			back.Want(t, "ping")
			c.do(client, back)
			eventually(t, "the connection has ended", func() bool { return g.Stats().Open == 0 })
			c.want["bytes_from_client"], c.want["bytes_to_client"], c.want["first_byte_ms"] = 4, 0, nil
			c.want["tls_version"], c.want["upstream_tls_version"], c.want["tls_resumed"] = nil, nil, nil
			one(t, end()).want(t, c.want)
		})
	}
}

// A connection that was dialed ahead of need counts no dial and no wait.
func TestRecordOfAWarmConnection(t *testing.T) {
	p := newPKI(t)
	back := listen(t, "tcp")
	echo(t, back, p.server(t, "back.test"))
	u := upstream.New(upstream.Options{Name: "group", Warm: 1, Endpoints: []upstream.EndpointOptions{over(t, back, p.upstream(t, "back.test"))}})
	u.Start()
	t.Cleanup(u.Retire)
	eventually(t, "a connection is warm", func() bool { return u.Status()[0].Warm.Ready == 1 })
	g, end := recorded(t, l4.Options{Table: fixed(&l4.Table{Default: to(u)})})
	c := g.dial(t, nil)
	c.Send(t, "hello")
	c.Want(t, "hello")
	_ = c.CloseWrite()
	c.WantEnd(t, "", clean)
	one(t, end()).want(t, record{"upstream_reused": true, "attempts": 1, "upstream_connect_ms": nil, "upstream_handshake_ms": nil,
		"upstream_tls_version": "TLS 1.3", "upstream_tls_resumed": false, "endpoint": back.Addr().String()}, "first_byte_ms")
}

func TestRecordOfAnAnnouncedClient(t *testing.T) {
	ln := listen(t, "tcp")
	echo(t, ln, nil)
	trust, _ := proxyproto.NewTrust([]string{"127.0.0.1"})
	g, end := recorded(t, l4.Options{Table: fixed(&l4.Table{ProxyProtocol: trust, Default: to(group(plain(ln)))})})
	c := g.dial(t, nil)
	c.Send(t, "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nhello")
	c.Want(t, "hello")
	peer := c.Raw.LocalAddr().String()
	_ = c.CloseWrite()
	c.WantEnd(t, "", clean)
	eventually(t, "its record is written", func() bool { return g.Stats().Open == 0 }) // otherwise the records may change their order
	missing := g.dial(t, nil)
	missing.Send(t, "GET / HTTP/1.1\r\n\r\n")
	_, _ = io.Copy(io.Discard, missing)
	all := end()
	if len(all) != 2 {
		t.Fatalf("records %v", all)
	}
	all[0].want(t, record{"client": "192.0.2.7", "client_port": 4711, "peer": peer, "ended": "closed"})
	all[1].want(t, record{"client": "127.0.0.1", "peer": nil, "ended": "no PROXY protocol header", "reason": "MISSING"})
}

// The access log is switched off and on while a connection is open. The setting at its
// end decides, and the connection is not affected.
func TestAccessLogIsSwitchedOffWithoutTouchingConnections(t *testing.T) {
	ln := listen(t, "tcp")
	echo(t, ln, nil)
	target := to(group(plain(ln)))
	var table atomic.Pointer[l4.Table]
	on, off := &l4.Table{Default: target}, &l4.Table{Default: target, NoAccessLog: true}
	table.Store(on)
	g, end := recorded(t, l4.Options{Table: table.Load})
	say := func(c *peer, word string) { t.Helper(); c.Send(t, word); c.Want(t, word) }
	hang := func(c *peer) {
		t.Helper()
		open := g.Stats().Open
		_ = c.CloseWrite()
		c.WantEnd(t, "", clean)
		eventually(t, "the connection has ended", func() bool { return g.Stats().Open == open-1 })
	}
	first, second := g.dial(t, nil), g.dial(t, nil)
	say(first, "1")
	say(second, "22")
	table.Store(off)
	say(first, "1")
	hang(first)
	table.Store(on)
	say(second, "22")
	hang(second)
	one(t, end()).want(t, record{"bytes_from_client": 4})
}
