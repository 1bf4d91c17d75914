package starttls

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// mysqlAsks is the payload of a client's request for TLS.
var mysqlAsks = mysqlResponseOf(mysqlWanted|mysqlSSL, "")[:mysqlResponse]

// record is the beginning of a TLS handshake.
const record = "\x16\x03\x01\x00\x05hello"

// offered greets a client that is offered TLS, and authenticates it with a server.
// There are no TLS handshakes: the client's record stands for its handshake. After
// that, offered calls secured.
func offered(t *testing.T, ctx context.Context, asked, optional bool, server, client func(mysqlPeer), secured ...func()) (*Client, error) {
	t.Helper()
	onServer := serve(t, func(c net.Conn) { server(mysqlPeer{c, t}) })
	onClient := socket.New(serve(t, func(c net.Conn) { client(mysqlPeer{c, t}) }), nil)
	c := NewClient(onClient, new(Key))
	c.Offer(Offer{Optional: optional, Timeout: testTimeout, Handshake: func(read []byte, _ time.Time) (net.Conn, error) {
		onClient.Unread(read)
		first := make([]byte, len(record))
		if _, err := io.ReadFull(onClient, first); err != nil || string(first) != record {
			return nil, errors.New("no handshake")
		}
		for _, f := range secured {
			f()
		}
		return onClient, nil
	}})
	ctx = WithClient(ctx, c)
	var err error
	if asked {
		if err = MySQL.Upgrade(ctx, onServer); err == nil {
			_, err = MySQL.Greet(ctx, onServer)
		}
	}
	if err == nil {
		_, err = MySQL.Join(ctx, onServer, Opening{}, nil)
	}
	return c, err
}

// asksForTLS is a client that requests TLS and responds over it.
func asksForTLS(plugin string, then func(mysqlPeer)) func(mysqlPeer) {
	return func(c mysqlPeer) {
		if got := c.read(0); !bytes.Contains(got, []byte(mysqlGreetingOf(mysqlOffered, "caching_sha2_password")[4:])) {
			t := c.t
			t.Errorf("the client is greeted with %q", got)
		}
		c.write(1, string(mysqlAsks))
		io.WriteString(c, record)
		c.write(2, string(mysqlResponseOf(mysqlWanted|mysqlSSL, plugin)))
		then(c)
	}
}

// decrypt returns the password that a client encrypted.
func decrypt(t *testing.T, key *Key, scramble, encrypted string) string {
	a := mysqlAuth{secrets: mysqlKeyForClient, stage: mysqlSecret, scramble: []byte(scramble)}
	move, err := a.client([]byte(encrypted), key)
	if err != nil {
		t.Error(err)
	}
	return string(move.payload)
}

func TestMySQLClientsMayAskForTLS(t *testing.T) {
	key := new(Key)
	_, public, err := key.get()
	if err != nil {
		t.Fatal(err)
	}
	const switched = "AuthSwitchScramble!!"
	// begin is a server that reads the client's response. It expects a request for TLS if
	// asked is set, and otherwise offers no TLS.
	begin := func(asked bool, plugin string) func(mysqlPeer) byte {
		return func(s mysqlPeer) byte {
			sequence := byte(1)
			want := mysqlResponseOf(mysqlWanted, plugin)
			if asked {
				io.WriteString(s, mysqlGreetingOf(mysqlOffered, "caching_sha2_password"))
				mysqlSetSSL(want, true)
				wantPacket(s, 1, string(want[:32]))
				sequence = 2
			} else {
				io.WriteString(s, mysqlGreetingOf(mysqlOffered&^mysqlSSL, "caching_sha2_password"))
			}
			wantPacket(s, sequence, string(want))
			return sequence + 1
		}
	}
	for _, asked := range []bool{false, true} {
		for name, c := range map[string]struct {
			plugin         string
			server         func(s mysqlPeer, n byte)
			client         func(c mysqlPeer)
			serverInTheTLS func(s mysqlPeer, n byte) // nil: the same as in plaintext
		}{
			"accepted": {"mysql_native_password", func(s mysqlPeer, n byte) { s.write(n, "\x00OK") }, func(c mysqlPeer) { wantPacket(c, 3, "\x00OK") }, nil},
			"denied":   {"client_ed25519", func(s mysqlPeer, n byte) { s.write(n, "\xffdenied") }, func(c mysqlPeer) { wantPacket(c, 3, "\xffdenied") }, nil},
			"from the server's cache": {
				"caching_sha2_password", func(s mysqlPeer, n byte) { s.write(n, "\x01\x03"); s.write(n+1, "\x00") },
				func(c mysqlPeer) { wantPacket(c, 3, "\x01\x03"); wantPacket(c, 4, "\x00") }, nil,
			},
			"with the whole password": {
				"caching_sha2_password", func(s mysqlPeer, n byte) {
					s.write(n, "\x01\x04")
					wantPacket(s, n+1, "\x02")
					s.write(n+2, "\x01"+string(public))
					if got := decrypt(t, key, mysqlScramble, string(s.read(n+3))); got != "secret\x00" {
						t.Errorf("the server gets the password %q", got)
					}
					s.write(n+4, "\x00")
				}, func(c mysqlPeer) {
					wantPacket(c, 3, "\x01\x04")
					c.write(4, "secret\x00")
					wantPacket(c, 5, "\x00")
				}, func(s mysqlPeer, n byte) {
					s.write(n, "\x01\x04")
					wantPacket(s, n+1, "secret\x00")
					s.write(n+2, "\x00")
				},
			},
			"with sha256_password": {
				"caching_sha2_password", func(s mysqlPeer, n byte) {
					s.write(n, "\xfesha256_password\x00"+switched+"\x00")
					wantPacket(s, n+1, "\x01")
					s.write(n+2, "\x01"+string(public))
					if got := decrypt(t, key, switched, string(s.read(n+3))); got != "secret\x00" {
						t.Errorf("the server gets the password %q", got)
					}
					s.write(n+4, "\x00")
				}, func(c mysqlPeer) {
					wantPacket(c, 3, "\xfesha256_password\x00"+switched+"\x00")
					c.write(4, "secret\x00")
					wantPacket(c, 5, "\x00")
				}, func(s mysqlPeer, n byte) {
					s.write(n, "\xfesha256_password\x00"+switched+"\x00")
					wantPacket(s, n+1, "secret\x00")
					s.write(n+2, "\x00")
				},
			},
			"with sha256_password and no password": {
				"caching_sha2_password", func(s mysqlPeer, n byte) {
					s.write(n, "\xfesha256_password\x00"+switched+"\x00")
					wantPacket(s, n+1, "\x00")
					s.write(n+2, "\x00")
				}, func(c mysqlPeer) { c.read(3); c.write(4, "\x00"); wantPacket(c, 5, "\x00") }, nil,
			},
			"with another plugin": {
				"caching_sha2_password", func(s mysqlPeer, n byte) {
					s.write(n, "\xfemysql_native_password\x00"+switched+"\x00")
					wantPacket(s, n+1, "hash")
					s.write(n+2, "\x00")
				}, func(c mysqlPeer) { c.read(3); c.write(4, "hash"); wantPacket(c, 5, "\x00") }, nil,
			},
		} {
			server := c.server
			if asked && c.serverInTheTLS != nil {
				server = c.serverInTheTLS
			}
			got, err := offered(t, t.Context(), asked, false, func(s mysqlPeer) { server(s, begin(asked, c.plugin)(s)) }, asksForTLS(c.plugin, c.client))
			if err != nil || !got.Secure() || got.Refusal() != nil {
				t.Errorf("%s, a request for TLS to the server %v: %v, %v", name, asked, err, got.Refusal())
			}
		}
		// The client may stay in plaintext if TLS is optional.
		got, err := offered(t, t.Context(), asked, true, func(s mysqlPeer) {
			s.write(begin(asked, "mysql_native_password")(s), "\x00")
		}, func(c mysqlPeer) {
			c.read(0)
			c.write(1, string(mysqlResponseOf(mysqlWanted, "mysql_native_password")))
			wantPacket(c, 2, "\x00")
		})
		if err != nil || got.Secure() {
			t.Errorf("in plaintext, a request for TLS to the server %v: %v", asked, err)
		}
	}
	// A client and a server in plaintext exchange the server's key themselves.
	_, err = offered(t, t.Context(), false, true, func(s mysqlPeer) {
		n := begin(false, "caching_sha2_password")(s)
		s.write(n, "\x01\x04")
		wantPacket(s, n+1, "\x02")
		s.write(n+2, "\x01"+string(public))
		wantPacket(s, n+3, "encrypted")
		s.write(n+4, "\x00")
	}, func(c mysqlPeer) {
		c.read(0)
		c.write(1, string(mysqlResponseOf(mysqlWanted, "caching_sha2_password")))
		c.read(2)
		c.write(3, "\x02")
		wantPacket(c, 4, "\x01"+string(public))
		c.write(5, "encrypted")
		wantPacket(c, 6, "\x00")
	})
	if err != nil {
		t.Error(err)
	}
}

// The gateway never sends the password of a TLS client in the clear to a plaintext
// server. The client learns why it is rejected.
func TestMySQLPasswordsAreNotSentInTheClear(t *testing.T) {
	greets := func(then func(mysqlPeer)) func(mysqlPeer) {
		return func(s mysqlPeer) {
			io.WriteString(s, mysqlGreetingOf(mysqlOffered, "caching_sha2_password"))
			then(s)
		}
	}
	nothing := func(s mysqlPeer) {
		if n, err := s.Read(make([]byte, 1)); n > 0 || err == nil {
			s.t.Error("the server received bytes")
		}
	}
	asks := func(message string) func(mysqlPeer) {
		return greets(func(s mysqlPeer) { s.read(1); s.write(2, message); nothing(s) })
	}
	switchTo := func(plugin string) func(mysqlPeer) { return asks("\xfe" + plugin + "\x00" + mysqlScramble + "\x00") }
	for name, c := range map[string]struct {
		plugin string // the plugin in the client's response
		server func(mysqlPeer)
		denied bool // the client is denied; otherwise the server broke the protocol
	}{
		"as the client's own plugin":         {"mysql_clear_password", greets(nothing), true},
		"sha256_password at once":            {"sha256_password", greets(nothing), true},
		"another plugin of the client":       {"authentication_of_tomorrow", greets(nothing), true},
		"mysql_clear_password":               {"mysql_native_password", switchTo("mysql_clear_password"), true},
		"dialog":                             {"mysql_native_password", switchTo("dialog"), true},
		"another name":                       {"mysql_native_password", switchTo("CACHING_SHA2_PASSWORD"), true},
		"an old plugin":                      {"mysql_native_password", asks("\xfe"), true},
		"a second factor":                    {"mysql_native_password", asks("\x02mysql_clear_password\x00\x00"), true},
		"data that the plugin does not send": {"mysql_native_password", asks("\x01\x04"), false},
		"further bytes after a request":      {"caching_sha2_password", asks("\x01\x04\x00"), false},
		"another message of the plugin":      {"caching_sha2_password", asks("\x01\x05"), false},
		"a message of an unknown kind":       {"caching_sha2_password", asks("\x42"), false},
	} {
		_, err := offered(t, t.Context(), false, false, func(s mysqlPeer) { c.server(s) }, asksForTLS(c.plugin, func(p mysqlPeer) {
			if c.denied {
				answer := p.read(3)
				if len(answer) > 0 && answer[0] == mysqlSwitch {
					p.t.Error("the request for the password reached the client")
				}
				if !bytes.Contains(answer, []byte("#08004the gateway's connection to the server is plaintext")) {
					p.t.Errorf("%s: the client got %q", name, answer)
				}
			}
			p.Conn.(*net.TCPConn).CloseWrite()
		}))
		if (certs.Classify(err) == certs.ReasonLocalConfig) != c.denied || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The server answers with a key that cannot encrypt the password, or with no
	// key.
	for name, answer := range map[string]string{"no PEM": "\x01no key", "no key": "\x01-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "an empty key": "\x01", "an error": "\xffdenied", "acceptance": "\x00"} {
		_, err := offered(t, t.Context(), false, false, greets(func(s mysqlPeer) {
			s.read(1)
			s.write(2, "\x01\x04")
			wantPacket(s, 3, "\x02")
			s.write(4, answer)
			nothing(s)
		}), asksForTLS("caching_sha2_password", func(p mysqlPeer) { p.read(3); p.write(4, "secret\x00"); hold(p) }))
		if ended := answer[0] != 1; (err == nil) != ended || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A client that is offered TLS and does not start it is refused with a reason.
func TestMySQLClientsThatDoNotStartTLSAreRefused(t *testing.T) {
	asks := string(mysqlPacket(1, mysqlAsks))
	plain := string(mysqlPacket(1, mysqlResponseOf(mysqlWanted, "secret")))
	greeting := []byte(mysqlGreetingOf(mysqlOffered, "x")[4:])
	for name, c := range map[string]struct {
		said   []string
		reason certs.Reason // "": the handshake follows
		text   string
		sent   string // the client's bytes after the greeting
	}{
		"a request, then TLS":                {said: []string{asks, record}},
		"requests TLS at once":               {said: []string{asks + record}},
		"plaintext in the same packet":       {said: []string{asks + "secret"}, reason: certs.ReasonSTARTTLSInjection, text: "6 bytes"},
		"plaintext after the request":        {said: []string{asks, plain}, reason: certs.ReasonSTARTTLSInjection, text: "the client sent plaintext after it had asked for TLS"},
		"a session in plaintext":             {said: []string{plain}, reason: certs.ReasonSTARTTLSRefused, text: "did not request TLS", sent: "#HY000this server requires TLS"},
		"further bytes after a response":     {said: []string{plain + "x"}, reason: certs.ReasonSTARTTLSRefused, text: "more than its response"},
		"a response with the TLS capability": {said: []string{string(mysqlPacket(1, mysqlResponseOf(mysqlWanted|mysqlSSL, "secret")))}, reason: certs.ReasonSTARTTLSRefused, text: "MySQL 4.1"},
		"a request without TLS":              {said: []string{string(mysqlPacket(1, mysqlResponseOf(mysqlWanted, "")[:32]))}, reason: certs.ReasonSTARTTLSRefused, text: "not MySQL"},
		"a request of MySQL 3":               {said: []string{string(mysqlPacket(1, []byte("\x00\x08\x00\x00\x00")))}, reason: certs.ReasonSTARTTLSRefused, text: "MySQL 4.1"},
		"out of sequence":                    {said: []string{string(mysqlPacket(2, mysqlAsks))}, reason: certs.ReasonSTARTTLSRefused, text: "not MySQL"},
		"an empty packet":                    {said: []string{"\x00\x00\x00\x01"}, reason: certs.ReasonSTARTTLSRefused, text: "not MySQL"},
		"an endless packet":                  {said: []string{"\xff\xff\xff\x01", strings.Repeat("secret ", 20_000)}, reason: certs.ReasonSTARTTLSRefused, text: "not MySQL"},
		"TLS at once":                        {said: []string{record}, reason: certs.ReasonSTARTTLSRefused, text: "not MySQL"},
		"HTTP":                               {said: []string{"GET /index.html?secret HTTP/1.1\r\n\r\n"}, reason: certs.ReasonSTARTTLSRefused, text: "not MySQL"},
	} {
		got := play(newMySQLServer(greeting, false), c.said...)
		sent := strings.TrimPrefix(got.sent, string(mysqlPacket(0, greeting)))
		if got.done != (c.reason == "") || got.reason != c.reason || !strings.Contains(got.text, c.text) || strings.Contains(got.text, "secret") || len(got.text) > 300 ||
			!strings.Contains(sent, c.sent) || (sent == "") != (c.sent == "") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, said := range splits(asks + record) { // in pieces of any size
		h := newMySQLServer(greeting, false)
		if got := play(h, said...); !got.done || !strings.HasPrefix(record, string(h.first)) || len(h.first) == 0 {
			t.Errorf("%q: %+v, then %q", said, got, h.first)
		}
	}
	for _, said := range append(splits(plain), []string{plain}) {
		h := newMySQLServer(greeting, true)
		if got := play(h, said...); !got.done || h.first != nil || string(h.response) != plain[4:] {
			t.Fatalf("%q, optional: %+v, %q", said, got, h.response)
		}
	}
}

// An offer of TLS ends with its context, its time or the connection, at each step.
func TestAMySQLOfferEnds(t *testing.T) {
	asks := string(mysqlPacket(1, mysqlAsks))
	response := string(mysqlPacket(2, mysqlResponseOf(mysqlWanted|mysqlSSL, "x")))
	for _, said := range []string{"", asks[:10], asks, asks + record + response[:20]} {
		beforeTLS := len(said) <= len(asks)
		for ending, want := range map[string]certs.Reason{"stalls": certs.ReasonHandshakeTimeout, "closes": certs.ReasonPeerClosed} {
			ctx, cancel := context.WithCancelCause(t.Context())
			stall := func() {
				if ending == "stalls" {
					cancel(context.DeadlineExceeded)
				}
			}
			c, err := offered(t, ctx, false, false, func(s mysqlPeer) {
				io.WriteString(s, mysqlGreetingOf(mysqlOffered, "x"))
				hold(s)
			}, func(p mysqlPeer) {
				p.read(0)
				io.WriteString(p, said)
				if ending == "closes" {
					p.Conn.(*net.TCPConn).CloseWrite()
				} else if beforeTLS {
					stall()
				}
				hold(p)
			}, stall)
			cancel(nil)
			if certs.Classify(err) != certs.ReasonClientFailed || (c.Refusal() != nil) != beforeTLS || beforeTLS && certs.ClassifyAccept(c.Refusal()) != want {
				t.Errorf("%s after %q: %v, %v", ending, said, err, c.Refusal())
			}
		}
	}
	c := NewClient(serve(t, func(conn net.Conn) { hold(conn) }), new(Key))
	c.Offer(Offer{Timeout: time.Millisecond})
	g, _ := parseMySQLGreeting([]byte(mysqlGreetingOf(mysqlOffered, "x")[4:]))
	if err := c.greet(t.Context(), g); err == nil || certs.ClassifyAccept(c.Refusal()) != certs.ReasonHandshakeTimeout {
		t.Errorf("after its time: %v, %v", err, c.Refusal())
	}
	if err := c.greet(t.Context(), g); err == nil || !strings.Contains(err.Error(), "it has already received the greeting of another server") {
		t.Errorf("a second greeting: %v", err)
	}
}

// A server that times out because of a slow client has not failed.
func TestSlowClientsExcuseTheServer(t *testing.T) {
	closed := broken("the server", io.EOF)
	for _, c := range []struct {
		client *Client
		err    error
		want   certs.Reason
	}{
		{nil, closed, certs.ReasonPeerClosed},
		{&Client{waited: promptTime - 1}, closed, certs.ReasonPeerClosed},
		{&Client{waited: promptTime}, closed, certs.ReasonClientFailed},
		{&Client{waited: promptTime}, broken("the server", context.DeadlineExceeded), certs.ReasonClientFailed},
		{&Client{waited: promptTime}, refused("no"), certs.ReasonSTARTTLSRefused},
		{&Client{waited: promptTime}, nil, ""},
	} {
		if got := c.client.Attribute(c.err); certs.Classify(got) != c.want {
			t.Errorf("%v of %+v became %v", c.err, c.client, got)
		}
	}
}

func FuzzMySQLServer(f *testing.F) {
	optional := false
	fuzzDialect(f, func() dialect { optional = !optional; return newMySQLServer([]byte("greeting"), optional) },
		string(mysqlPacket(1, mysqlAsks))+record, string(mysqlPacket(1, mysqlResponseOf(mysqlWanted, "x"))), "\xff\xff\xff\x01")
}

func FuzzMySQLSecured(f *testing.F) {
	f.Add(mysqlResponseOf(mysqlWanted|mysqlSSL, "x"), uint8(2))
	f.Fuzz(func(t *testing.T, payload []byte, sequence uint8) {
		s := newMySQLSecured()
		_, done, err := s.feed(mysqlPacket(sequence, payload))
		if done && (err != nil || binary.LittleEndian.Uint32(s.response)&mysqlProtocol41 == 0 || mysqlPlugin(s.response, "default") == "") {
			t.Fatalf("%q, %v", s.response, err)
		}
	})
}
