package l4_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A talker plays dialogs: it sends text, and reads the expected answer.
type talker struct {
	net.Conn
	t *testing.T
}

func (c talker) say(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Errorf("sending %q: %v", text, err)
	}
}

func (c talker) hear(want string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		c.t.Errorf("got %q, %v; want %q", got[:n], err, want)
	}
}

// upgrade makes the client's handshake.
func (c talker) upgrade(config *tls.Config) talker {
	c.t.Helper()
	tc := tls.Client(c.Conn, config)
	if err := tc.Handshake(); err != nil {
		c.t.Errorf("handshake: %v", err)
	}
	return talker{tc, c.t}
}

func (g *gate) talk(t *testing.T) talker { return talker{g.dial(t, nil).Raw.Conn, t} }

// greeter serves one connection after another: it sends a greeting and echoes lines.
func greeter(t *testing.T, greeting string) net.Listener {
	ln := listen(t, "tcp")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, greeting)
			io.Copy(conn, conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln
}

// serveOnce serves the first connection of ln, and closes it.
func serveOnce(ln net.Listener, serve func(net.Conn)) {
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn)
	}()
}

const pgSSL = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

var ldapAsks = "\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + "1.3.6.1.4.1.1466.20037"

// openers are each protocol's dialogs up to the handshake: the client's texts, the
// gateway's answers, and the greeting that the client expects after its handshake.
var openers = map[starttls.Protocol]struct{ greeting, asks, answer, greets, then string }{
	starttls.Postgres: {"", pgSSL, "S", "", ""},
	starttls.LDAP:     {"", ldapAsks, "\x30\x24\x02\x01\x01\x78\x1f\x0a\x01\x00\x04\x00\x04\x00\x8a\x16" + "1.3.6.1.4.1.1466.20037", "", ""},
	starttls.SMTP:     {"220 localhost ESMTP\r\n", "STARTTLS\r\n", "220 2.0.0 Ready to start TLS\r\n", "220 upstream\r\n", ""},
	starttls.LMTP:     {"220 localhost LMTP\r\n", "STARTTLS\r\n", "220 2.0.0 Ready to start TLS\r\n", "220-upstream\r\n220 x\r\n", ""},
	starttls.IMAP:     {"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n", "a STARTTLS\r\n", "a OK begin TLS negotiation\r\n", "* OK upstream\r\n", ""},
	starttls.POP3:     {"+OK ready\r\n", "STLS\r\n", "+OK begin TLS negotiation\r\n", "+OK <1.2@upstream>\r\n", ""},
	starttls.NNTP:     {"200 ready\r\n", "STARTTLS\r\n", "382 continue with TLS negotiation\r\n", "201 upstream\r\n", ""},
	starttls.Sieve: {
		"\"IMPLEMENTATION\" \"Drawbridge\"\r\n\"SASL\" \"\"\r\n\"SIEVE\" \"\"\r\n\"STARTTLS\"\r\n\"VERSION\" \"1.0\"\r\nOK\r\n", "STARTTLS\r\n", "OK \"begin TLS negotiation\"\r\n",
		"\"SASL\" \"PLAIN\"\r\n\"STARTTLS\"\r\nOK\r\n", "\"SASL\" \"PLAIN\"\r\nOK\r\n",
	},
}

// A client that requests TLS in the middle of a protocol reaches an upstream that
// begins with TLS. It also reaches a plaintext upstream, whose greeting it does not
// get a second time.
func TestClientsStartTLS(t *testing.T) {
	p := newPKI(t)
	for protocol, o := range openers {
		ln := greeter(t, o.greets)
		encrypted := listen(t, "tcp")
		serveOnce(encrypted, func(raw net.Conn) {
			conn := tls.Server(raw, p.server(t, "up.test"))
			io.WriteString(conn, o.greets)
			io.Copy(conn, conn)
		})
		for _, u := range []upstream.EndpointOptions{plain(ln), over(t, encrypted, p.upstream(t, "up.test"))} {
			g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), Starttls: protocol, Default: to(group(u))})
			c := g.talk(t)
			c.hear(o.greeting)
			c.say(o.asks)
			c.hear(o.answer)
			secure := c.upgrade(p.client("gate.test"))
			secure.hear(o.then)
			secure.say("over TLS")
			secure.hear("over TLS")
			if s := g.Stats(); s.HandshakesFull != 1 {
				t.Errorf("%v: %+v", protocol, s)
			}
			secure.Close()
		}
	}
}

// If a client does not complete the upgrade, none of its bytes reach the upstream, and
// the log says why.
func TestClientsThatDoNotStartTLSAreRefused(t *testing.T) {
	p := newPKI(t)
	requiring, err := certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, p.ca.Server(t, "gate.test"))},
		ClientAuth:   certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{p.ca.Trust(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		protocol starttls.Protocol
		tls      *certs.Servers
		say      string
		reason   certs.Reason
		upgrade  *tls.Config // the client's TLS after the answer, or nil
	}{
		"speaks plaintext":                 {protocol: starttls.Postgres, say: "\x00\x00\x00\x12\x00\x03\x00\x00user\x00bob\x00\x00", reason: certs.ReasonSTARTTLSRefused},
		"sends too much":                   {protocol: starttls.Postgres, say: pgSSL + "\x00", reason: certs.ReasonSTARTTLSInjection},
		"sends too much later":             {protocol: starttls.IMAP, say: "a STARTTLS\r\nb LOGIN bob secret\r\n", reason: certs.ReasonSTARTTLSInjection},
		"the client stalls":                {protocol: starttls.SMTP, say: "EHLO x\r\nSTART", reason: certs.ReasonHandshakeTimeout},
		"stalls after its request for TLS": {protocol: starttls.SMTP, say: "STARTTLS\r\n", reason: certs.ReasonHandshakeTimeout},
		"the client quits":                 {protocol: starttls.POP3, say: "QUIT\r\n", reason: certs.ReasonPeerClosed},
		"has no certificate":               {protocol: starttls.Postgres, tls: certs.NewServers(requiring), say: pgSSL, upgrade: p.client("gate.test"), reason: certs.ReasonClientCertificateRequired},
		"begins with TLS":                  {protocol: starttls.IMAP, say: "\x16\x03\x01\x00\x05\x01", reason: certs.ReasonSTARTTLSRefused},
		"negotiates no protocol":           {protocol: starttls.Postgres, upgrade: p.client("gate.test"), reason: certs.ReasonALPNMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logtest.Buffer
			ln := listen(t, "tcp")
			table := &l4.Table{TLS: p.listener(t, "gate.test"), Starttls: c.protocol, Default: to(group(plain(ln)))}
			if c.tls != nil {
				table.TLS = c.tls
			}
			if c.reason == certs.ReasonHandshakeTimeout {
				table.HandshakeTimeout = 50 * time.Millisecond
			}
			g := open(t, "tcp", l4.Options{Listener: "test", Table: func() *l4.Table { return table }, Logger: debugLog(&log)})
			client := g.talk(t)
			if c.reason == certs.ReasonHandshakeTimeout {
				_, _ = io.WriteString(client, c.say) // fails if the time is up
			} else if c.say != "" {
				client.say(c.say)
			}
			if c.upgrade != nil {
				if c.say != "" {
					client.hear("S")
				}
				tc := tls.Client(client.Conn, c.upgrade)
				_ = tc.Handshake()
				_, _ = tc.Read(make([]byte, 1))
			}
			eventually(t, "the connection ends", func() bool { return g.Stats().Open == 0 })
			eventually(t, "the log has the reason", func() bool { return strings.Contains(log.String(), `"reason":"`+string(c.reason)+`"`) })
			if s := g.Stats(); s.BytesToUpstream != 0 || s.DialFailures != 0 || strings.Contains(log.String(), "secret") {
				t.Errorf("%+v, %s", s, log.String())
			}
			wantNoConnection(t, ln)
		})
	}
}

// If both sides start TLS, neither sees the other side's plaintext greeting.
func TestBothSidesStartTLS(t *testing.T) {
	p := newPKI(t)
	config := p.server(t, "up.test")
	ln := listen(t, "tcp")
	serveOnce(ln, func(raw net.Conn) {
		r := bufio.NewReader(raw)
		for _, say := range []string{"220 up\r\n", "250-up\r\n250 STARTTLS\r\n", "220 go\r\n"} {
			io.WriteString(raw, say)
			if say != "220 go\r\n" {
				r.ReadString('\n')
			}
		}
		conn := tls.Server(raw, config)
		r = bufio.NewReader(conn)
		for range 2 { // the introductions of the gateway and of the client
			line, _ := r.ReadString('\n')
			io.WriteString(conn, "250 "+line)
		}
		io.Copy(conn, r)
	})
	u := upstream.New(upstream.Options{Name: "mail", Starttls: starttls.SMTP, Endpoints: []upstream.EndpointOptions{over(t, ln, p.upstream(t, "up.test"))}})
	g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), Starttls: starttls.SMTP, Default: to(u)})
	c := g.talk(t)
	c.hear("220 localhost ESMTP\r\n")
	c.say("EHLO client.test\r\nSTARTTLS\r\n")
	c.hear("250-localhost\r\n250 STARTTLS\r\n220 2.0.0 Ready to start TLS\r\n")
	secure := c.upgrade(p.client("gate.test"))
	secure.say("EHLO client.test\r\nDATA\r\n")
	secure.hear("250 EHLO client.test\r\nDATA\r\n")
}

// If TLS is optional, the gateway introduces a plaintext client to the upstream, and
// forwards its first command unchanged.
func TestTLSMayBeOptional(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	serveOnce(ln, func(raw net.Conn) {
		r := bufio.NewReader(raw)
		io.WriteString(raw, "220 up\r\n")
		line, _ := r.ReadString('\n')
		io.WriteString(raw, "250-up\r\n250 SIZE\r\n")
		line2, _ := r.ReadString('\n')
		io.WriteString(raw, line+line2)
		io.Copy(raw, r)
	})
	g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), Starttls: starttls.SMTP, StarttlsOptional: true, Default: to(group(plain(ln)))})
	c := g.talk(t)
	c.hear("220 localhost ESMTP\r\n")
	c.say("HELO client.test\r\n")
	c.hear("250 localhost\r\n")
	c.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
	c.hear("HELO client.test\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
}

// A request to cancel a statement needs no TLS, as with a server. The gateway sends
// it over the upstream's TLS, even on a warm connection, and sends nothing after
// it.
func TestCancelRequestsAreRelayed(t *testing.T) {
	const request = "\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x12\x34\xde\xad\xbe\xef"
	p := newPKI(t)
	for _, warm := range []int{0, 1} {
		ln := listen(t, "tcp")
		received := make(chan string, 1)
		serveOnce(ln, func(raw net.Conn) {
			conn := tls.Server(raw, p.server(t, "up.test"))
			buf := make([]byte, 100)
			n, _ := conn.Read(buf)
			received <- string(buf[:n])
		})
		u := upstream.New(upstream.Options{Name: "pg", Warm: warm, Endpoints: []upstream.EndpointOptions{over(t, ln, p.upstream(t, "up.test"))}})
		u.Start()
		t.Cleanup(u.Retire)
		if warm > 0 {
			eventually(t, "a connection is warm", func() bool { return u.Status()[0].Warm.Ready > 0 })
		}
		g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), Starttls: starttls.Postgres, Default: to(u)})
		c := g.dial(t, nil)
		c.Send(t, request+"more")
		if got := <-received; got != request {
			t.Errorf("the upstream got %q", got)
		}
		c.WantEnd(t, "", clean, reset) // a reset, because "more" was not read
	}
}
