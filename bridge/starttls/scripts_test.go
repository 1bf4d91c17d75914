package starttls

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A serverScript is a whole exchange with a server: the server's messages at each step,
// the messages of the dialect, and the server's messages over TLS.
type serverScript struct {
	protocol Protocol
	said     []string // the server's message at each step; the last one agrees to start TLS
	sent     string
	secured  []string
	asked    string // the dialect's messages over TLS
	greeting string // the greeting for the client
}

var talks = []serverScript{
	{
		SMTP,
		[]string{"220-mail.test\r\n220 ESMTP Postfix\r\n", "250-mail.test\r\n250-SIZE 1000\r\n250-starttls\r\n250 DSN\r\n", "220 2.0.0 Ready to start TLS\r\n"},
		"EHLO localhost\r\nSTARTTLS\r\n",
		[]string{"250-mx.test Hello\r\n250 DSN\r\n"}, "EHLO localhost\r\n", "220 mx.test ESMTP\r\n",
	},
	{
		LMTP,
		[]string{"220 lmtp\r\n", "250-lmtp.test\r\n250 STARTTLS\r\n", "220 go\r\n"}, "LHLO localhost\r\nSTARTTLS\r\n",
		[]string{"250 lmtp.test\r\n"}, "LHLO localhost\r\n", "220 lmtp.test LMTP\r\n",
	},
	{
		IMAP,
		[]string{"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n", "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\nd1 OK done\r\n", "d2 OK begin\r\n"},
		"d1 CAPABILITY\r\nd2 STARTTLS\r\n",
		[]string{"* CAPABILITY IMAP4rev1 AUTH=PLAIN STARTTLS x]y\r\nd3 OK done\r\n"}, "d3 CAPABILITY\r\n", "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n",
	},
	{
		POP3,
		[]string{"+OK <1.2@pop.test> ready\r\n", "+OK\r\nUIDL\r\nSTLS\r\n.\r\n", "+OK begin\r\n"}, "CAPA\r\nSTLS\r\n",
		[]string{"+OK\r\nUIDL\r\n.\r\n"}, "CAPA\r\n", "+OK ready\r\n",
	},
	{
		NNTP,
		[]string{"200 news\r\n", "101 list\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n", "382 go\r\n"}, "CAPABILITIES\r\nSTARTTLS\r\n",
		[]string{"101 list\r\nVERSION 2\r\nREADER\r\nPOST\r\n.\r\n"}, "CAPABILITIES\r\n", "200 ready, posting allowed\r\n",
	},
	{
		Sieve,
		[]string{"\"IMPLEMENTATION\" \"x\"\r\n\"SASL\" \"\"\r\n\"STARTTLS\"\r\nOK \"ready\"\r\n", "OK \"begin\"\r\n"}, "STARTTLS\r\n",
		[]string{"\"IMPLEMENTATION\" \"x\"\r\n\"SASL\" \"PLAIN\"\r\nOK \"TLS\"\r\n"}, "", "\"IMPLEMENTATION\" \"x\"\r\n\"SASL\" \"PLAIN\"\r\nOK\r\n",
	},
	{protocol: Postgres, said: []string{"S"}, sent: "\x00\x00\x00\x08\x04\xd2\x16\x2f"},
	{
		protocol: LDAP, said: []string{ldapResponse(1, 0, "")},
		sent: "\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + ldapStartTLS,
	},
}

// ldapResponse returns an ExtendedResponse.
func ldapResponse(id, code byte, text string) string {
	op := "\x0a\x01" + string(code) + "\x04\x00\x04" + string(byte(len(text))) + text
	body := "\x02\x01" + string(id) + "\x78" + string(byte(len(op))) + op
	return "\x30" + string(byte(len(body))) + body
}

func TestAServerThatAgreesIsUpgraded(t *testing.T) {
	for _, k := range talks {
		client := func() dialect { return specs[k.protocol].client() }
		if got := play(client(), k.said...); !got.done || got.sent != k.sent {
			t.Errorf("%v: %+v", k.protocol, got)
		}
		// The answers arrive in pieces of any size.
		for i := range k.said {
			for _, pieces := range splits(k.said[i]) {
				said := slices.Concat(k.said[:i], pieces, k.said[i+1:])
				if got := play(client(), said...); !got.done || got.sent != k.sent {
					t.Errorf("%v, %q: %+v", k.protocol, said, got)
				}
			}
		}
		if k.protocol.ServerSpeaksFirst() != (k.greeting != "") {
			t.Errorf("%v speaks first: %v", k.protocol, k.protocol.ServerSpeaksFirst())
		}
		if k.greeting == "" {
			continue
		}
		for _, pieces := range append(splits(k.secured[0]), k.secured) {
			s := specs[k.protocol].secured()
			if got := play(s, pieces...); !got.done || got.sent != k.asked || string(s.greeting()) != k.greeting {
				t.Errorf("%v over TLS: %+v, greets with %q", k.protocol, got, s.greeting())
			}
		}
	}
}

// One byte too many at any step ends the upgrade, before the next command is
// sent.
func TestAServerThatSendsTooMuchIsRefused(t *testing.T) {
	for _, k := range talks {
		for i := range k.said {
			for _, extra := range []string{"x", "\r\n", k.said[len(k.said)-1], "\x16\x03\x01"} {
				said := slices.Clone(k.said[:i+1])
				said[i] += extra
				got := play(specs[k.protocol].client(), said...)
				if got.done || got.reason != certs.ReasonSTARTTLSInjection || strings.HasPrefix(got.sent, k.sent) && i < len(k.said)-1 {
					t.Errorf("%v, step %d with %q: %+v", k.protocol, i, extra, got)
				}
			}
		}
	}
}

func TestAServerThatDoesNotStartTLSIsRefused(t *testing.T) {
	long := strings.Repeat("x", 20_000)
	endless := strings.Repeat("220-wait\r\n", 10_000)
	for _, c := range []struct {
		protocol Protocol
		name     string
		said     []string
		text     string
	}{
		{SMTP, "busy", []string{"421 too busy\r\n"}, `refused: it sent "421 too busy" as its greeting`},
		{SMTP, "no capability", []string{"220 a\r\n", "250-a\r\n250-STARTTLSX\r\n250 SIZE\r\n"}, `does not offer STARTTLS in its answer to EHLO: it offers "STARTTLSX, SIZE"`},
		{SMTP, "no EHLO", []string{"220 a\r\n", "502 what?\r\n"}, "as its answer to EHLO"},
		{SMTP, "refusal", []string{"220 a\r\n", "250-a\r\n250 STARTTLS\r\n", "454 no certificate\r\n"}, `"454 no certificate" as its answer to STARTTLS`},
		{SMTP, "codes that differ", []string{"220-a\r\n250 b\r\n"}, "not SMTP"},
		{SMTP, "a long line", []string{"220 " + long}, "a line of more than 8192 bytes"},
		{SMTP, "a long line with an end", []string{"220 " + long + "\r\n"}, "a line of more than 8192 bytes"},
		{SMTP, "an endless greeting", []string{endless}, "more than 65536 bytes"},
		{SMTP, "SSH", []string{"SSH-2.0-OpenSSH\r\n"}, `"SSH-2.0-OpenSSH" as its greeting, which is not SMTP`},
		{SMTP, "an escape", []string{"220 a\r\n", "550 \x1b[31m\x00\r\n"}, `\x1b[31m\x00`},
		{LMTP, "no capability", []string{"220 a\r\n", "250 a\r\n"}, "answer to LHLO"},
		{LMTP, "refusal", []string{"220 a\r\n", "250-a\r\n250 STARTTLS\r\n", "501 no\r\n"}, "501 no"},
		{IMAP, "preauthenticated", []string{"* PREAUTH welcome\r\n"}, "begins an authenticated session"},
		{IMAP, "busy", []string{"* BYE too busy\r\n"}, "too busy"},
		{IMAP, "HTTP", []string{"HTTP/1.1 400 Bad Request\r\n"}, "not IMAP"},
		{IMAP, "no capability", []string{"* OK\r\n", "* CAPABILITY IMAP4rev1\r\nd1 OK\r\n"}, `it offers "IMAP4rev1"`},
		{IMAP, "capabilities that end", []string{"* OK\r\n", "* BYE shutting down\r\n"}, "ended the session"},
		{IMAP, "refusal", []string{"* OK\r\n", "* CAPABILITY STARTTLS\r\nd1 OK\r\n", "d2 NO not now\r\n"}, "d2 NO not now"},
		{IMAP, "another tag", []string{"* OK\r\n", "d9 OK\r\n"}, "not IMAP"},
		{IMAP, "endless untagged lines", []string{"* OK\r\n", strings.Repeat("* 1 EXISTS\r\n", 10_000)}, "more than 65536 bytes"},
		{POP3, "busy", []string{"-ERR busy\r\n"}, "-ERR busy"},
		{POP3, "no CAPA", []string{"+OK\r\n", "-ERR what?\r\n"}, "its answer to CAPA"},
		{POP3, "no capability", []string{"+OK\r\n", "+OK\r\nUIDL\r\n.\r\n"}, "does not offer STLS"},
		{POP3, "an endless list", []string{"+OK\r\n", "+OK\r\n" + strings.Repeat("UIDL\r\n", 20_000)}, "more than 65536 bytes"},
		{POP3, "refusal", []string{"+OK\r\n", "+OK\r\nSTLS\r\n.\r\n", "-ERR no\r\n"}, "-ERR no"},
		{POP3, "FTP", []string{"220 ftp\r\n"}, "not POP3"},
		{NNTP, "busy", []string{"400 busy\r\n"}, "400 busy"},
		{NNTP, "no CAPABILITIES", []string{"200 a\r\n", "500 what?\r\n"}, "500 what?"},
		{NNTP, "no capability", []string{"200 a\r\n", "101 a\r\nREADER\r\n.\r\n"}, "does not offer STARTTLS"},
		{NNTP, "refusal", []string{"201 a\r\n", "101 a\r\nSTARTTLS\r\n.\r\n", "580 no\r\n"}, "580 no"},
		{NNTP, "POP3", []string{"+OK\r\n"}, "not NNTP"},
		{Sieve, "no capability", []string{"\"SASL\" \"PLAIN\"\r\nOK\r\n"}, "does not offer STARTTLS"},
		{Sieve, "busy", []string{"BYE \"busy\"\r\n"}, "busy"},
		{Sieve, "refusal", []string{"\"STARTTLS\"\r\nOK\r\n", "NO \"broken\"\r\n"}, "broken"},
		{Sieve, "an endless list", []string{strings.Repeat("\"X\" \"y\"\r\n", 10_000)}, "more than 65536 bytes"},
		{Sieve, "SMTP", []string{"220 a\r\n"}, "not ManageSieve"},
		{LDAP, "refusal", []string{ldapResponse(1, 2, "unsupported extended operation")}, `result 2, "unsupported extended operation"`},
		{LDAP, "a notice of disconnection", []string{ldapResponse(0, 52, "")}, "ended the session: result 52"},
		{LDAP, "another operation", []string{"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00"}, "not an extended response"},
		{LDAP, "a huge length", []string{"\x30\x84\x7f\xff\xff\xff"}, "not LDAP"},
		{LDAP, "an endless length", []string{"\x30\x80\x00"}, "not LDAP"},
		{LDAP, "SMTP", []string{"220 a\r\n"}, "not LDAP"},
		{LDAP, "a long response", []string{"\x30\x82\x1f\xff" + long}, "more than 8192 bytes"},
	} {
		got := play(specs[c.protocol].client(), c.said...)
		if got.done || got.reason != certs.ReasonSTARTTLSRefused || !strings.Contains(got.text, c.text) || len(got.text) > 2000 {
			t.Errorf("%v, %s: %+v", c.protocol, c.name, got)
		}
	}
	// After a fault over TLS, the gateway does not use the connection. The reason
	// is a refusal, because no one on the path can cause it.
	for _, c := range []struct {
		protocol Protocol
		said     string
	}{{SMTP, "554 no\r\n"}, {IMAP, "* BYE\r\n"}, {POP3, "-ERR\r\n"}, {NNTP, "502 no\r\n"}, {Sieve, "BYE\r\n"}, {LMTP, "421 no\r\n"}} {
		if got := play(specs[c.protocol].secured(), c.said); got.done || got.reason != certs.ReasonSTARTTLSRefused {
			t.Errorf("%v over TLS: %+v", c.protocol, got)
		}
	}
}

// Active Directory writes lengths in four octets.
func TestLDAPLengthsMayBeLong(t *testing.T) {
	const long = "\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00"
	if got := play(specs[LDAP].client(), long); !got.done {
		t.Errorf("%+v", got)
	}
	if got := play(specs[LDAP].client(), long+"x"); got.reason != certs.ReasonSTARTTLSInjection {
		t.Errorf("%+v", got)
	}
}

// An invalid server name never reaches the client.
func TestGreetingsHoldOnlyPrintableNames(t *testing.T) {
	for _, said := range []string{"250 \x1b[31m\r\n", "250 \r\n", "250 " + strings.Repeat("a", 300) + "\r\n", "250 a\rb\r\n", "250\r\n"} {
		s := specs[SMTP].secured()
		if got := play(s, said); !got.done || string(s.greeting()) != "220 localhost ESMTP\r\n" {
			t.Errorf("%q: %+v greets with %q", said, got, s.greeting())
		}
	}
}

// fuzzTalk fuzzes both parts of a protocol's dialect.
func fuzzTalk(f *testing.F, p Protocol) {
	var seeds []string
	for _, k := range talks {
		if k.protocol == p {
			seeds = append(seeds, strings.Join(k.said, ""), strings.Join(k.secured, ""))
			seeds = append(seeds, k.said...)
		}
	}
	dialects := []func() dialect{specs[p].client}
	if secured := specs[p].secured; secured != nil {
		dialects = append(dialects, func() dialect { return secured() })
	}
	i := 0
	fuzzDialect(f, func() dialect { i++; return dialects[i%len(dialects)]() }, seeds...)
}

func FuzzSMTP(f *testing.F)  { fuzzTalk(f, SMTP) }
func FuzzLMTP(f *testing.F)  { fuzzTalk(f, LMTP) }
func FuzzIMAP(f *testing.F)  { fuzzTalk(f, IMAP) }
func FuzzPOP3(f *testing.F)  { fuzzTalk(f, POP3) }
func FuzzLDAP(f *testing.F)  { fuzzTalk(f, LDAP) }
func FuzzNNTP(f *testing.F)  { fuzzTalk(f, NNTP) }
func FuzzSieve(f *testing.F) { fuzzTalk(f, Sieve) }
