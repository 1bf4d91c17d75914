package l4_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A client that sends an endless flood of records without data is disconnected. Other
// clients are served.
func TestFloodsFromAClientEndTheConnection(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	echo(t, ln, nil)
	g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), Default: through(group(plain(ln)))})
	for name, send := range splicetest.AllFloods() {
		t.Run(name, func(t *testing.T) {
			config, secrets := splicetest.HostileConfig(&tls.Config{ServerName: "gate.test", RootCAs: p.ca.Pool()})
			c := g.dial(t, config)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			h := c.Hostile(t, secrets, true)
			splicetest.WantFloodEnded(t, c.Raw.Conn, func() int { return h.Sent }, func() error { return send(h) })
		})
	}
	other := g.dial(t, &tls.Config{ServerName: "gate.test", RootCAs: p.ca.Pool()})
	other.Send(t, "hello")
	other.CloseWrite()
	other.WantEnd(t, "hello", clean)
}

// The same floods from an upstream.
func TestFloodsFromAnUpstreamEndTheConnection(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	g := serve(t, &l4.Table{Default: through(group(over(t, ln, certs.ClientOptions{
		Trust: []*certs.TrustBundle{p.ca.Trust(t)}, ServerName: "upstream.test", Certificate: nil})))})
	for name, send := range splicetest.AllFloods() {
		t.Run(name, func(t *testing.T) {
			config, secrets := splicetest.HostileConfig(p.server(t, "upstream.test"))
			c := g.dial(t, nil)
			c.Send(t, "hello")
			u := accept(t, ln, config)
			if err := u.Handshake(); err != nil {
				t.Fatal(err)
			}
			h := u.Hostile(t, secrets, false)
			splicetest.WantFloodEnded(t, u.Raw.Conn, func() int { return h.Sent }, func() error { return send(h) })
			if got, how := c.ReadAll(); len(bytes.Trim(got, "x")) > 0 || how == clean { // some floods have data
				t.Errorf("the client got %q and a %s end", got, how)
			}
		})
	}
}

// plainFloods are sent instead of a handshake.
var plainFloods = map[string][]byte{
	"empty handshake records": {22, 3, 3, 0, 0},
	"warnings":                {21, 3, 3, 0, 2, 1, 90},
	"changes of cipher":       {20, 3, 3, 0, 1, 1},
	"empty data records":      {23, 3, 3, 0, 0},
	"hello requests":          {22, 3, 3, 0, 4, 0, 0, 0, 0},
}

// writeFlood returns a flood of a record, many in each write.
func writeFlood(raw net.Conn, record []byte) (sent func() int, flood func() error) {
	total := 0
	many := bytes.Repeat(record, 1000)
	return func() int { return total }, func() error {
		n, err := raw.Write(many)
		total += n
		return err
	}
}

func TestFloodsDuringTheHandshakeEndTheConnection(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	listener := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), HandshakeTimeout: time.Hour, Default: through(group(plain(ln)))})
	bridge := serve(t, &l4.Table{Default: through(group(over(t, ln, certs.ClientOptions{
		Trust: []*certs.TrustBundle{p.ca.Trust(t)}, ServerName: "upstream.test"})))})
	for name, record := range plainFloods {
		for where, before := range map[string][]byte{"at the start": nil, "after a hello": hello(t)} {
			t.Run("client: "+name+" "+where, func(t *testing.T) {
				c := listener.dial(t, nil)
				if _, err := c.Raw.Write(before); err != nil {
					t.Fatal(err)
				}
				sent, flood := writeFlood(c.Raw.Conn, record)
				splicetest.WantFloodEnded(t, c.Raw.Conn, sent, flood)
			})
		}
		t.Run("upstream: "+name, func(t *testing.T) {
			c := bridge.dial(t, nil)
			c.Send(t, "hello")
			u := accept(t, ln, nil)
			sent, flood := writeFlood(u.Raw.Conn, record)
			splicetest.WantFloodEnded(t, u.Raw.Conn, sent, flood)
			if got, how := c.ReadAll(); len(got) > 0 || how == clean {
				t.Errorf("the client got %q and a %s end", got, how)
			}
		})
	}
}
