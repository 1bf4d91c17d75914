package l4_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// mysqlMessage returns a MySQL packet.
func mysqlMessage(sequence byte, payload string) string {
	return string([]byte{byte(len(payload)), 0, 0, sequence}) + payload
}

// mysqlGreets returns a server's greeting, with or without the offer of TLS.
func mysqlGreets(offersTLS bool) string {
	capabilities := "\xff\xf7"
	if offersTLS {
		capabilities = "\xff\xff"
	}
	return mysqlMessage(0, "\x0a8.4.0-test\x00\x01\x00\x00\x00abcdefgh\x00"+capabilities+"\x2d\x02\x00\xff\xdf\x15"+strings.Repeat("\x00", 10)+"12345678ijkl\x00mysql_native_password\x00")
}

// Packets of a MySQL client: its request for TLS, and its response with and without
// TLS.
var (
	mysqlFixed    = "\x00\x00\x00\x01\x2d" + strings.Repeat("\x00", 23)
	mysqlAsks     = mysqlMessage(1, "\x00\x8a\x08\x00"+mysqlFixed)
	mysqlResponds = func(sequence byte, tls bool) string {
		capabilities := "\x00\x82\x08\x00"
		if tls {
			capabilities = "\x00\x8a\x08\x00"
		}
		return mysqlMessage(sequence, capabilities+mysqlFixed+"bob\x00\x04hashmysql_native_password\x00")
	}
)

// mysqlServer authenticates one client, and then echoes. With a config, the client
// must request TLS.
func mysqlServer(t *testing.T, config *tls.Config) net.Listener {
	ln := listen(t, "tcp")
	serveOnce(ln, func(raw net.Conn) {
		c := talker{raw, t}
		c.say(mysqlGreets(config != nil))
		if config == nil {
			c.hear(mysqlResponds(1, false))
			c.say(mysqlMessage(2, "\x00"))
		} else {
			c.hear(mysqlAsks)
			c.Conn = tls.Server(raw, config)
			c.hear(mysqlResponds(2, true))
			c.say(mysqlMessage(3, "\x00"))
		}
		io.Copy(c, c)
	})
	return ln
}

// A MySQL client that requests TLS reaches servers with and without TLS. So does a
// plaintext client, if TLS is optional. Each side counts its own packets, and the
// connection is listed with its TLS.
func TestMySQLClientsReachTheirServer(t *testing.T) {
	p := newPKI(t)
	for _, secureServer := range []bool{false, true} {
		for _, secureClient := range []bool{false, true} {
			o := upstream.Options{Name: "db"}
			if secureServer {
				o.Starttls = starttls.MySQL
				o.Endpoints = []upstream.EndpointOptions{over(t, mysqlServer(t, p.server(t, "up.test")), p.upstream(t, "up.test"))}
			} else {
				o.Endpoints = []upstream.EndpointOptions{plain(mysqlServer(t, nil))}
			}
			g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), Starttls: starttls.MySQL, StarttlsOptional: !secureClient, Default: to(upstream.New(o))})
			c := g.talk(t)
			c.hear(mysqlGreets(true))
			sequence := byte(1)
			if secureClient {
				c.say(mysqlAsks)
				c = c.upgrade(p.client("gate.test"))
				sequence = 2
			}
			c.say(mysqlResponds(sequence, secureClient))
			c.hear(mysqlMessage(sequence+1, "\x00"))
			c.say("session")
			c.hear("session")
			handshakes := uint64(0)
			if secureClient {
				handshakes = 1
			}
			if s := g.Stats(); s.HandshakesFull != handshakes || s.DialFailures != 0 {
				t.Errorf("%+v", s)
			}
			var all []live.Entry
			g.EachConnection(func(e live.Entry) { all = append(all, e) })
			if len(all) != 1 {
				t.Fatalf("%d connections are listed", len(all))
			}
			var got live.Connection
			if all[0].Describe(&got); (got.Client.TLS != nil) != secureClient || secureClient && got.Client.TLS.ServerName != "gate.test" || (got.Server.TLS != nil) != secureServer {
				t.Errorf("the connection is listed as %+v", got)
			}
			c.Close()
		}
	}
}

// A client that does not complete the upgrade is refused with its reason, and the
// failure does not count against the endpoint.
func TestMySQLClientsThatDoNotStartTLSAreRefused(t *testing.T) {
	p := newPKI(t)
	for name, c := range map[string]struct {
		say    string
		reason certs.Reason
	}{
		"speaks plaintext":                 {mysqlResponds(1, false), certs.ReasonSTARTTLSRefused},
		"sends too much":                   {mysqlAsks + "secret", certs.ReasonSTARTTLSInjection},
		"stalls in its request for TLS":    {mysqlAsks[:9], certs.ReasonHandshakeTimeout},
		"stalls after its request for TLS": {mysqlAsks, certs.ReasonHandshakeTimeout},
		"stalls in its record":             {mysqlAsks + "\x16\x03\x01", certs.ReasonHandshakeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logtest.Buffer
			ln := listen(t, "tcp")
			serveOnce(ln, func(raw net.Conn) { io.WriteString(raw, mysqlGreets(false)); io.Copy(io.Discard, raw) })
			u := group(plain(ln))
			table := &l4.Table{TLS: p.listener(t, "gate.test"), Starttls: starttls.MySQL, Default: to(u)}
			if c.reason == certs.ReasonHandshakeTimeout {
				table.HandshakeTimeout = 100 * time.Millisecond
			}
			g := open(t, "tcp", l4.Options{Listener: "test", Table: func() *l4.Table { return table }, Logger: debugLog(&log)})
			_, _ = io.WriteString(g.talk(t), c.say) // fails if the time is up
			eventually(t, "the connection ends", func() bool { return g.Stats().Accepted > 0 && g.Stats().Open == 0 })
			eventually(t, "the log has the reason", func() bool { return strings.Contains(log.String(), `"reason":"`+string(c.reason)+`"`) })
			if s := g.Stats(); s.BytesToUpstream != 0 || s.DialFailures != 0 || len(u.Status()[0].Failures) != 0 || strings.Contains(log.String(), "secret") {
				t.Errorf("%+v, %+v, %s", s, u.Status()[0].Failures, log.String())
			}
		})
	}
}
