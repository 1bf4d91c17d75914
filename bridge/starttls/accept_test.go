package starttls

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

const (
	pgSSL    = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	pgGSS    = "\x00\x00\x00\x08\x04\xd2\x16\x30"
	pgStart  = "\x00\x00\x00\x12\x00\x03\x00\x00user\x00bob\x00\x00"
	pgCancel = "\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x12\x34\xde\xad\xbe\xef"
	hello    = "\x16\x03\x01\x02\x00\x01" // the beginning of a TLS record
)

// ldapRequest returns an operation without content.
func ldapRequest(id, tag byte, content string) string {
	return ber(0x30, ber(2, string(id))+ber(tag, content))
}

var ldapAsks = ldapRequest(7, 0x77, ber(0x80, ldapStartTLS))

// opener holds the messages of clients until they request TLS, and the answers.
type opener struct {
	protocol Protocol
	said     []string // the client's messages
	answers  string
	session  []string // messages of a client that does not request TLS; the last one begins the session
	hello    string   // the introduction at the beginning of session
	denial   string   // the answer to the last message of session if TLS is required
}

var openers = []opener{
	{Postgres, []string{pgGSS, pgSSL}, "NS", []string{pgStart}, "", "FATAL"},
	{Postgres, []string{pgSSL}, "S", []string{pgGSS, pgStart}, "", "28000"},
	{
		SMTP, []string{"ehlo client.test\r\n", "NOOP\r\n", "starttls\r\n"}, "220 localhost ESMTP\r\n250-localhost\r\n250 STARTTLS\r\n250 2.0.0 OK\r\n220 2.0.0 Ready to start TLS\r\n",
		[]string{"EHLO client.test\r\n", "MAIL FROM:<a@b>\r\n"}, "EHLO client.test\r\n", "530 5.7.0 Must issue a STARTTLS command first\r\n",
	},
	{SMTP, []string{"STARTTLS\n"}, "220 localhost ESMTP\r\n220 2.0.0 Ready to start TLS\r\n", []string{"HELO x\r\n", "AUTH PLAIN c2VjcmV0\r\n"}, "HELO x\r\n", "530 5.7.0 "},
	{LMTP, []string{"LHLO x\r\n", "STARTTLS\r\n"}, "220 localhost LMTP\r\n250-localhost\r\n250 STARTTLS\r\n220 2.0.0 Ready to start TLS\r\n", []string{"LHLO x\r\n", "MAIL FROM:<a@b>\r\n"}, "LHLO x\r\n", "530 5.7.0 "},
	{
		IMAP, []string{"a1 capability\r\n", "a2 STARTTLS\r\n"}, "* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na1 OK done\r\na2 OK begin TLS negotiation\r\n",
		[]string{"a1 NOOP\r\n", "a2 LOGIN bob secret\r\n"}, "", "a2 NO [PRIVACYREQUIRED] ",
	},
	{POP3, []string{"CAPA\r\n", "STLS\r\n"}, "+OK ready\r\n+OK\r\nSTLS\r\n.\r\n+OK begin TLS negotiation\r\n", []string{"USER bob\r\n"}, "", "-ERR TLS is required"},
	{NNTP, []string{"CAPABILITIES\r\n", "STARTTLS\r\n"}, "200 ready\r\n101 capabilities\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n382 continue with TLS negotiation\r\n", []string{"MODE READER\r\n"}, "", "483 "},
	{
		Sieve, []string{"NOOP\r\n", "STARTTLS\r\n"},
		"\"IMPLEMENTATION\" \"Drawbridge\"\r\n\"SASL\" \"\"\r\n\"SIEVE\" \"\"\r\n\"STARTTLS\"\r\n\"VERSION\" \"1.0\"\r\nOK\r\nOK\r\nOK \"begin TLS negotiation\"\r\n",
		[]string{"AUTHENTICATE \"PLAIN\" \"AGJvYgBzZWNyZXQ=\"\r\n"}, "", "NO (ENCRYPT-NEEDED) ",
	},
	{LDAP, []string{ldapAsks}, string(ldapResult([]byte{7}, 0x78, 0, "", ldapStartTLS)), []string{ldapRequest(9, 0x60, "secret")}, "", "\x02\x01\x09\x61"},
}

func TestAClientThatAsksIsUpgraded(t *testing.T) {
	for _, o := range openers {
		whole := strings.Join(o.said, "")
		ways := [][]string{o.said}
		for _, first := range splits(o.said[0]) {
			ways = append(ways, append(first, o.said[1:]...))
		}
		if o.protocol.ServerSpeaksFirst() {
			ways = append(ways, []string{whole}) // pipelined, but without further bytes at the end
		}
		for _, said := range ways {
			a := specs[o.protocol].server(false)
			if got := play(a, said...); !got.done || !strings.HasSuffix(got.sent, o.answers) || a.opening().Next != TLS || len(a.opening().Read) > 0 {
				t.Errorf("%v, %q: %+v, opening %+v", o.protocol, said, got, a.opening())
			}
		}
		// The bytes arrive in pieces of any size.
		if o.protocol != Postgres { // a PostgreSQL client must not send SSLRequest before the answer to GSSENCRequest
			for _, said := range splits(whole) {
				if got := play(specs[o.protocol].server(true), said...); !got.done {
					t.Errorf("%v, %q: %+v", o.protocol, said, got)
				}
			}
		}
	}
}

// Bytes after the request for TLS end the connection before the gateway agrees
// to start TLS.
func TestBytesAfterTheRequestAreRefused(t *testing.T) {
	for _, o := range openers {
		for _, extra := range []string{"x", "\r\n", hello, "AUTH PLAIN c2VjcmV0\r\n", pgStart} {
			for _, optional := range []bool{false, true} {
				said := slices.Clone(o.said)
				said[len(said)-1] += extra
				got := play(specs[o.protocol].server(optional), said...)
				if got.done || got.reason != certs.ReasonSTARTTLSInjection || strings.HasSuffix(got.sent, o.answers) || strings.Contains(got.text, "c2Vj") {
					t.Errorf("%v, %q: %+v", o.protocol, said, got)
				}
			}
		}
	}
	if got := play(newPostgresServer(false), pgGSS+pgSSL); got.reason != certs.ReasonSTARTTLSInjection || got.sent != "" {
		t.Errorf("a request after GSSENCRequest: %+v", got)
	}
}

func TestAClientInPlaintextNeedsPermission(t *testing.T) {
	for _, o := range openers {
		a := specs[o.protocol].server(true)
		got := play(a, o.session...)
		last := o.session[len(o.session)-1]
		if r := a.opening(); !got.done || r.Next != Plaintext || string(r.Read) != last || r.hello != o.hello {
			t.Errorf("%v, optional: %+v, opening %+v", o.protocol, got, r)
		}
		// Further bytes in the same segment belong to the session.
		a = specs[o.protocol].server(true)
		if play(a, append(slices.Clone(o.session[:len(o.session)-1]), last+"more")...); string(a.opening().Read) != last+"more" {
			t.Errorf("%v, optional: the next read returns %q", o.protocol, a.opening().Read)
		}
		a = specs[o.protocol].server(false)
		got = play(a, o.session...)
		if got.done || !strings.Contains(got.sent, o.denial) || o.protocol == Postgres && got.reason != certs.ReasonSTARTTLSRefused {
			t.Errorf("%v, required: %+v", o.protocol, got)
		}
		if o.protocol == Postgres {
			continue
		}
		// The denied client may still request TLS.
		if got := play(specs[o.protocol].server(false), append(slices.Clone(o.session), o.said...)...); !got.done {
			t.Errorf("%v, denied: %+v", o.protocol, got)
		}
	}
}

func TestAClientThatDoesNotAskIsRefused(t *testing.T) {
	long := strings.Repeat("secret ", 20_000)
	for _, c := range []struct {
		protocol Protocol
		name     string
		said     []string
		reason   certs.Reason
		text     string
	}{
		{SMTP, "a long line", []string{"EHLO " + long}, certs.ReasonSTARTTLSRefused, "the client sent a line of more than 8192 bytes"},
		{SMTP, "endless commands", slices.Repeat([]string{"NOOP\r\n"}, 40), certs.ReasonSTARTTLSRefused, "more than 32 commands"},
		{SMTP, "endless lines", []string{strings.Repeat("X\r\n", 40_000)}, certs.ReasonSTARTTLSRefused, "more than 65536 bytes"},
		{SMTP, "an end", []string{"EHLO x\r\n", "QUIT\r\n"}, certs.ReasonPeerClosed, "ended the session with QUIT"},
		{LMTP, "an end", []string{"quit\r\n"}, certs.ReasonPeerClosed, "QUIT"},
		{IMAP, "an end", []string{"secret LOGOUT\r\n"}, certs.ReasonPeerClosed, "LOGOUT"},
		{POP3, "an end", []string{"QUIT\r\n"}, certs.ReasonPeerClosed, "QUIT"},
		{NNTP, "an end", []string{"QUIT\r\n"}, certs.ReasonPeerClosed, "QUIT"},
		{Sieve, "an end", []string{"LOGOUT\r\n"}, certs.ReasonPeerClosed, "LOGOUT"},
		{LDAP, "an end", []string{ldapRequest(1, ldapUnbind, "")}, certs.ReasonPeerClosed, "an unbind request"},
		{LDAP, "endless operations", slices.Repeat([]string{ldapRequest(1, 0x63, "")}, 40), certs.ReasonSTARTTLSRefused, "more than 32 operations"},
		{LDAP, "abandoned operations", slices.Repeat([]string{ldapRequest(1, ldapAbandon, "")}, 40), certs.ReasonSTARTTLSRefused, "more than 32 operations"},
		{LDAP, "a huge length", []string{"\x30\x84\x7f\xff\xff\xff"}, certs.ReasonSTARTTLSRefused, "not LDAP"},
		{LDAP, "an unknown operation", []string{ldapRequest(1, 0x7f, "")}, certs.ReasonSTARTTLSRefused, "not LDAP"},
		{LDAP, "HTTP", []string{"GET / HTTP/1.1\r\n"}, certs.ReasonSTARTTLSRefused, `"GET / HTTP/1.1\r\n", which is not LDAP`},
		{LDAP, "TLS", []string{hello}, certs.ReasonSTARTTLSRefused, "not LDAP"},
		{Postgres, "HTTP", []string{"GET /secret-token HTTP/1.1\r\n"}, certs.ReasonSTARTTLSRefused, "not PostgreSQL"},
		{Postgres, "GSSAPI twice", []string{pgGSS, pgGSS}, certs.ReasonSTARTTLSRefused, "not PostgreSQL"},
		{Postgres, "TLS after GSSAPI", []string{pgGSS, hello}, certs.ReasonSTARTTLSRefused, "not PostgreSQL"},
		{Postgres, "protocol 2", []string{"\x00\x00\x01\x28\x00\x02\x00\x00"}, certs.ReasonSTARTTLSRefused, "not PostgreSQL"},
		{Postgres, "a huge startup packet", []string{"\x00\x00\xff\xff\x00\x03\x00\x00"}, certs.ReasonSTARTTLSRefused, "not PostgreSQL"},
		{Postgres, "a short cancellation", []string{"\x00\x00\x00\x0c\x04\xd2\x16\x2e\x00\x00\x00\x00"}, certs.ReasonSTARTTLSRefused, "not PostgreSQL"},
		{Postgres, "a long cancellation", []string{"\x00\x00\x02\x00\x04\xd2\x16\x2e\x00\x00\x00\x00"}, certs.ReasonSTARTTLSRefused, "not PostgreSQL"},
	} {
		got := play(specs[c.protocol].server(false), c.said...)
		if got.done || got.reason != c.reason || !strings.Contains(got.text, c.text) || strings.Contains(got.text, "secret ") || strings.Contains(got.text, "token") || len(got.text) > 300 || len(got.sent) > 5000 {
			t.Errorf("%v, %s: %+v", c.protocol, c.name, got)
		}
	}
	// Invalid commands get an answer.
	for _, c := range []struct {
		protocol   Protocol
		said, want string
	}{
		{SMTP, "EHLO\r\n", "501 "}, {SMTP, "EHLO a\x00b\r\n", "501 "}, {SMTP, "STARTTLS now\r\n", "501 "}, {LMTP, "HELO x\r\n", "530 "},
		{IMAP, "\r\n", "* BAD "}, {IMAP, "* OK\r\n", "* BAD "}, {IMAP, "a\rb STARTTLS\r\n", "* BAD "}, {IMAP, "a STARTTLS now\r\n", "a BAD "},
		{POP3, "STLS now\r\n", "-ERR "}, {NNTP, "STARTTLS now\r\n", "501 "}, {Sieve, "STARTTLS now\r\n", "NO "}, {Sieve, "CAPABILITY\r\n", "\"STARTTLS\"\r\n"},
	} {
		got := play(specs[c.protocol].server(false), c.said)
		if answer := got.sent[len(specs[c.protocol].server(false).start()):]; got.done || got.reason != "" || !strings.Contains(answer, c.want) {
			t.Errorf("%v, %q: %+v", c.protocol, c.said, got)
		}
	}
}

func TestPostgresClientsMayBeginWithTLSOrCancel(t *testing.T) {
	a := newPostgresServer(false)
	if got := play(a, hello); !got.done || a.opening().Next != TLS || string(a.opening().Read) != hello || a.opening().ALPN != "postgresql" {
		t.Errorf("TLS at once: %+v, %+v", got, a.opening())
	}
	long := string(binary.BigEndian.AppendUint32(nil, 12+256)) + pgCancel[4:12] + strings.Repeat("k", 256) // PostgreSQL 18
	for _, request := range []string{pgCancel, long} {
		for _, said := range append(splits(request), []string{request}, []string{request + "more"}) {
			a := newPostgresServer(false)
			if got := play(a, said...); !got.done || got.sent != "" || a.opening().Next != Cancel || string(a.opening().Read) != request {
				t.Fatalf("%q: %+v, %+v", said, got, a.opening())
			}
		}
	}
}

// accept runs Accept for a client that sends each part after the answer to the
// previous one.
func accept(t *testing.T, ctx context.Context, p Protocol, said []string, then func(net.Conn)) (Opening, error) {
	t.Helper()
	conn := serve(t, func(c net.Conn) {
		for i, s := range said {
			if i > 0 || p.ServerSpeaksFirst() {
				if _, err := c.Read(make([]byte, 512)); err != nil {
					return
				}
			}
			io.WriteString(c, s)
		}
		then(c)
	})
	return p.Accept(ctx, conn, false)
}

// An opening ends with its context or with the connection, at each step.
func TestAnOpeningEndsWithItsContextOrConnection(t *testing.T) {
	for _, o := range openers {
		for i := range len(o.said) + 1 {
			said := slices.Clone(o.said[:i])
			if i < len(o.said) {
				said = append(said, o.said[i][:len(o.said[i])/2])
			}
			if _, err := accept(t, soon(t), o.protocol, said, hold); certs.ClassifyAccept(err) != certs.ReasonHandshakeTimeout || !strings.Contains(err.Error(), "waiting for the client: ") {
				t.Errorf("%v stalls after %q: %v", o.protocol, said, err)
			}
			closes := func(c net.Conn) { c.(*net.TCPConn).CloseWrite(); hold(c) }
			if _, err := accept(t, t.Context(), o.protocol, said, closes); certs.ClassifyAccept(err) != certs.ReasonPeerClosed {
				t.Errorf("%v closes after %q: %v", o.protocol, said, err)
			}
		}
	}
}

// Plaintext that arrives after the gateway agreed to start TLS may have been inserted
// before.
func TestPlaintextInsteadOfAClientsHandshakeIsAnInjection(t *testing.T) {
	for _, o := range openers {
		plain := append(slices.Clone(o.said), "AUTH PLAIN c2VjcmV0\r\n")
		if _, err := accept(t, t.Context(), o.protocol, plain, hold); certs.ClassifyAccept(err) != certs.ReasonSTARTTLSInjection || strings.Contains(err.Error(), "c2V") {
			t.Errorf("%v, plaintext: %v", o.protocol, err)
		}
		got, err := accept(t, t.Context(), o.protocol, append(slices.Clone(o.said), hello), hold)
		if err != nil || string(got.Read) != hello {
			t.Errorf("%v, a handshake: %+v, %v", o.protocol, got, err)
		}
	}
	if o, err := None.Accept(t.Context(), nil, false); err != nil || o.Next != TLS {
		t.Errorf("no protocol: %v, %v", o, err)
	}
}

func TestAServerIsPreparedForItsClient(t *testing.T) {
	for _, c := range []struct {
		protocol Protocol
		opening  Opening
		said     []string // the server's messages
		asked    string
		greeting string // the greeting returned by Greet
		want     string
		reason   certs.Reason
	}{
		{protocol: SMTP, said: []string{"220-a\r\n220 b\r\n"}},
		{protocol: SMTP, greeting: "220 x\r\n"},
		{protocol: SMTP, opening: Opening{Next: Plaintext, hello: "EHLO c\r\n"}, said: []string{"220 a\r\n", "250-a\r\n250 SIZE\r\n"}, asked: "EHLO c\r\n"},
		{protocol: LMTP, opening: Opening{Next: Plaintext, hello: "LHLO c\r\n"}, greeting: "220 x\r\n", said: []string{"250 a\r\n"}, asked: "LHLO c\r\n"},
		{protocol: SMTP, said: []string{"421 busy\r\n"}, reason: certs.ReasonSTARTTLSRefused},
		{protocol: SMTP, said: []string{"220 a\r\n250 more\r\n"}, reason: certs.ReasonSTARTTLSInjection},
		{protocol: IMAP, said: []string{"* OK a\r\n"}},
		{protocol: IMAP, said: []string{"* PREAUTH a\r\n"}, reason: certs.ReasonSTARTTLSRefused},
		{protocol: POP3, said: []string{"+OK <1@a>\r\n"}},
		{protocol: NNTP, said: []string{"201 a\r\n"}},
		{protocol: Sieve, said: []string{"\"SASL\" \"PLAIN\"\r\n\"STARTTLS\"\r\nOK\r\n"}, want: "\"SASL\" \"PLAIN\"\r\nOK\r\n"},
		{protocol: Sieve, greeting: "\"SASL\" \"\"\r\nOK\r\n", want: "\"SASL\" \"\"\r\nOK\r\n"},
		{protocol: Sieve, opening: Opening{Next: Plaintext}, said: []string{"\"SASL\" \"PLAIN\"\r\nOK\r\n"}},
		{protocol: Postgres},
		{protocol: LDAP},
	} {
		asked := make(chan string, 1)
		conn := serve(t, func(conn net.Conn) {
			var all strings.Builder
			defer func() { asked <- all.String() }()
			for i, s := range c.said {
				if i > 0 || c.greeting != "" {
					buf := make([]byte, 512)
					n, _ := conn.Read(buf)
					all.Write(buf[:n])
				}
				io.WriteString(conn, s)
			}
		})
		got, err := c.protocol.Join(t.Context(), conn, c.opening, []byte(c.greeting))
		if string(got) != c.want || certs.Classify(err) != c.reason {
			t.Errorf("%v, %+v: client gets %q, %v", c.protocol, c, got, err)
		}
		if err == nil {
			if got := <-asked; got != c.asked {
				t.Errorf("%v, %+v: server gets %q", c.protocol, c, got)
			}
		}
	}
}

func fuzzServer(f *testing.F, p Protocol) {
	var seeds []string
	for _, o := range openers {
		if o.protocol == p {
			seeds = append(seeds, strings.Join(o.said, ""), strings.Join(o.session, ""))
		}
	}
	optional := false
	fuzzDialect(f, func() dialect { optional = !optional; return specs[p].server(optional) }, seeds...)
}

func FuzzPostgresServer(f *testing.F) { fuzzServer(f, Postgres) }
func FuzzSMTPServer(f *testing.F)     { fuzzServer(f, SMTP) }
func FuzzLMTPServer(f *testing.F)     { fuzzServer(f, LMTP) }
func FuzzIMAPServer(f *testing.F)     { fuzzServer(f, IMAP) }
func FuzzPOP3Server(f *testing.F)     { fuzzServer(f, POP3) }
func FuzzLDAPServer(f *testing.F)     { fuzzServer(f, LDAP) }
func FuzzNNTPServer(f *testing.F)     { fuzzServer(f, NNTP) }
func FuzzSieveServer(f *testing.F)    { fuzzServer(f, Sieve) }
