package starttls

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

const (
	mysqlScramble = "abcdefgh12345678ijkl"
	mysqlOffered  = 0xffffffff
	mysqlWanted   = mysqlOwnCapabilities | mysqlLongAuthData | mysqlConnectWithDB
)

// mysqlGreetingOf returns a greeting's packet.
func mysqlGreetingOf(capabilities uint32, plugin string) string {
	p := []byte("\x0a8.0.99-test\x00\x01\x00\x00\x00" + mysqlScramble[:8] + "\x00")
	p = binary.LittleEndian.AppendUint16(p, uint16(capabilities))
	p = append(p, 45, 2, 0)
	p = binary.LittleEndian.AppendUint16(p, uint16(capabilities>>16))
	p = append(p, 21)
	p = append(p, make([]byte, 10)...)
	p = append(p, mysqlScramble[8:]+"\x00"+plugin+"\x00"...)
	return string(mysqlPacket(0, p))
}

// mysqlResponseOf returns the payload of a client's response.
func mysqlResponseOf(capabilities uint32, plugin string) []byte {
	p := binary.LittleEndian.AppendUint32(nil, capabilities)
	p = append(p, 0, 0, 0, 1, 33)
	p = append(p, make([]byte, 23)...)
	return append(p, "bob\x00\x04hash"+"db\x00"+plugin+"\x00"...)
}

func TestMySQLServersThatDoNotOfferTLSAreRefused(t *testing.T) {
	good := mysqlGreetingOf(mysqlOffered, "caching_sha2_password")
	for name, c := range map[string]struct {
		said   string
		reason certs.Reason
		text   string
	}{
		"no TLS":                   {mysqlGreetingOf(mysqlOffered&^mysqlSSL, "x"), certs.ReasonSTARTTLSRefused, `"8.0.99-test" does not offer TLS`},
		"too old":                  {mysqlGreetingOf(mysqlSSL|mysqlProtocol41, "x"), certs.ReasonSTARTTLSRefused, "too old"},
		"an error":                 {string(mysqlPacket(0, []byte("\xff\x10\x04Too many\x1b connections"))), certs.ReasonSTARTTLSRefused, `"1040 Too many\x1b connections"`},
		"bytes after the greeting": {good + "x", certs.ReasonSTARTTLSInjection, "more than its greeting"},
		"SMTP":                     {"220 mail\r\n", certs.ReasonSTARTTLSRefused, "which is not MySQL"},
		"HTTP":                     {"HTTP/1.1 400 Bad Request\r\n", certs.ReasonSTARTTLSRefused, "which is not MySQL"},
		"another sequence":         {good[:3] + "\x01" + good[4:], certs.ReasonSTARTTLSRefused, "out of sequence"},
		"an empty packet":          {"\x00\x00\x00\x00", certs.ReasonSTARTTLSRefused, "which is not MySQL"},
		"an endless packet":        {"\xff\xff\xff\x00", certs.ReasonSTARTTLSRefused, "too long"},
		"protocol 9":               {string(mysqlPacket(0, []byte("\x095.0\x00"))), certs.ReasonSTARTTLSRefused, "which is not MySQL"},
		"a short greeting":         {string(mysqlPacket(0, []byte("\x0a8.0\x00abcd"))), certs.ReasonSTARTTLSRefused, "which is not MySQL"},
	} {
		if got := play(newMySQLClient(true), c.said); got.done || got.reason != c.reason || !strings.Contains(got.text, c.text) || got.sent != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, said := range append(splits(good), []string{good}) {
		if got := play(newMySQLClient(true), said...); !got.done {
			t.Fatalf("%q: %+v", said, got)
		}
	}
}

// A mysqlPeer is the test's end of a connection.
type mysqlPeer struct {
	net.Conn
	t *testing.T
}

// read reads a packet with a sequence number.
func (p mysqlPeer) read(sequence byte) []byte {
	payload, err := readMySQL(p, sequence)
	if err != nil {
		p.t.Errorf("packet %d: %v", sequence, err)
	}
	return payload
}

func (p mysqlPeer) write(sequence byte, payload string) {
	p.Write(mysqlPacket(sequence, []byte(payload)))
}

// mysqlUpgrade upgrades a server for a client and returns the error. Here the
// exchange after the request for TLS stays in plaintext.
func mysqlUpgrade(t *testing.T, ctx context.Context, server, client func(mysqlPeer)) error {
	t.Helper()
	onServer := serve(t, func(c net.Conn) { server(mysqlPeer{c, t}) })
	onClient := serve(t, func(c net.Conn) { client(mysqlPeer{c, t}) })
	c := NewClient(onClient, new(Key))
	ctx = WithClient(ctx, c)
	err := MySQL.Upgrade(ctx, onServer)
	if err == nil {
		_, err = MySQL.Greet(ctx, onServer)
	}
	if ClientOf(ctx) != c || err == nil && !c.Greeted() {
		t.Error("the client was not greeted")
	}
	return err
}

// encrypt encrypts a password as clients do.
func encrypt(t *testing.T, public, scramble, password string) string {
	block, _ := pem.Decode([]byte(public))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte(password + "\x00")
	for i := range plain {
		plain[i] ^= scramble[i%len(scramble)]
	}
	out, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, key.(*rsa.PublicKey), plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestMySQLClientsAreAuthenticatedOverTLS(t *testing.T) {
	response := mysqlResponseOf(mysqlWanted, "caching_sha2_password")
	begin := func(s mysqlPeer) {
		io.WriteString(s, mysqlGreetingOf(mysqlOffered, "caching_sha2_password"))
		want := bytes.Clone(response)
		want[1] |= mysqlSSL >> 8
		if got := s.read(1); !bytes.Equal(got, want[:32]) {
			t.Errorf("the request for TLS is %q, want %q", got, want[:32])
		}
		if got := s.read(2); !bytes.Equal(got, want) {
			t.Errorf("the response is %q, want %q", got, want)
		}
	}
	respond := func(c mysqlPeer) {
		if got, want := c.read(0), mysqlGreetingOf(mysqlOffered&^mysqlSSL, "caching_sha2_password")[4:]; string(got) != want {
			t.Errorf("the client is greeted with %q, want %q", got, want)
		}
		c.write(1, string(response))
	}
	// requests returns a server that sends a message, and accepts a client with the
	// wanted answer.
	asks := func(message, want string) func(mysqlPeer) {
		return func(s mysqlPeer) {
			begin(s)
			s.write(3, message)
			wantPacket(s, 4, want)
			s.write(5, "\x00")
		}
	}
	const switched = "AuthSwitchScramble!!"
	for name, c := range map[string]struct{ server, client func(mysqlPeer) }{
		"accepted": {
			func(s mysqlPeer) { begin(s); s.write(3, "\x00OK") },
			func(c mysqlPeer) { respond(c); wantPacket(c, 2, "\x00OK") },
		},
		"denied": {
			func(s mysqlPeer) { begin(s); s.write(3, "\xffdenied") },
			func(c mysqlPeer) { respond(c); wantPacket(c, 2, "\xffdenied") },
		},
		"from the server's cache": {
			func(s mysqlPeer) { begin(s); s.write(3, "\x01\x03"); s.write(4, "\x00") },
			func(c mysqlPeer) { respond(c); wantPacket(c, 2, "\x01\x03"); wantPacket(c, 3, "\x00") },
		},
		"with the whole password": {
			asks("\x01\x04", "secret\x00"),
			func(c mysqlPeer) {
				respond(c)
				wantPacket(c, 2, "\x01\x04")
				c.write(3, "\x02")
				key := string(c.read(4))
				c.write(5, encrypt(t, key[1:], mysqlScramble, "secret"))
				wantPacket(c, 6, "\x00")
			},
		},
		"with a password in the clear": { // also sent so over a unix-domain socket
			asks("\x01\x04", "secret\x00"),
			func(c mysqlPeer) {
				respond(c)
				wantPacket(c, 2, "\x01\x04")
				c.write(3, "secret\x00")
				wantPacket(c, 4, "\x00")
			},
		},
		"with another plugin": {
			asks("\xfemysql_native_password\x00"+switched+"\x00", "hash"),
			func(c mysqlPeer) {
				respond(c)
				wantPacket(c, 2, "\xfemysql_native_password\x00"+switched+"\x00")
				c.write(3, "hash")
				wantPacket(c, 4, "\x00")
			},
		},
		"with sha256_password": {
			asks("\xfesha256_password\x00"+switched+"\x00", "secret\x00"),
			func(c mysqlPeer) {
				respond(c)
				wantPacket(c, 2, "\xfesha256_password\x00"+switched+"\x00")
				c.write(3, "\x01")
				key := string(c.read(4))
				c.write(5, encrypt(t, key[1:], switched, "secret"))
				wantPacket(c, 6, "\x00")
			},
		},
	} {
		if err := mysqlUpgrade(t, t.Context(), c.server, c.client); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func wantPacket(p mysqlPeer, sequence byte, want string) {
	p.t.Helper()
	if got := p.read(sequence); string(got) != want {
		p.t.Errorf("packet %d is %q, want %q", sequence, got, want)
	}
}

// An untilSilent is a conn that ends the upgrade when its side stops sending.
type untilSilent struct {
	net.Conn
	end func()
}

func (c untilSilent) Read(b []byte) (int, error) {
	if len(b) == holdSize {
		c.end()
	}
	return c.Conn.Read(b)
}

// Failures of a client never blame the server, and no error quotes the client's bytes.
func TestMySQLFailuresBelongToOneSide(t *testing.T) {
	greets := func(s mysqlPeer) {
		io.WriteString(s, mysqlGreetingOf(mysqlOffered, "caching_sha2_password"))
		hold(s)
	}
	asks := func(messages ...string) func(mysqlPeer) {
		return func(s mysqlPeer) {
			io.WriteString(s, mysqlGreetingOf(mysqlOffered, "caching_sha2_password"))
			s.read(1)
			s.read(2)
			for i, m := range messages {
				s.write(byte(3+2*i), m)
			}
			hold(s)
		}
	}
	says := func(raw string) func(mysqlPeer) {
		return func(c mysqlPeer) { c.read(0); io.WriteString(c, raw); hold(c) }
	}
	response := mysqlResponseOf(mysqlWanted, "secret")
	responds := says(string(mysqlPacket(1, response)))
	for name, c := range map[string]struct {
		server, client func(mysqlPeer)
		reason         certs.Reason
	}{
		"the client is silent":      {greets, says(""), certs.ReasonClientFailed},
		"the client stops":          {greets, says(string(mysqlPacket(1, response)[:20])), certs.ReasonClientFailed},
		"the client sends more":     {greets, says(string(mysqlPacket(1, response)) + "x"), certs.ReasonClientFailed},
		"the client asks for TLS":   {greets, says(string(mysqlPacket(1, mysqlResponseOf(mysqlWanted|mysqlSSL, "x")[:32]))), certs.ReasonClientFailed},
		"the client insists on TLS": {greets, says(string(mysqlPacket(1, mysqlResponseOf(mysqlWanted|mysqlSSL, "x")))), certs.ReasonClientFailed},
		"the client is too old":     {greets, says(string(mysqlPacket(1, mysqlResponseOf(mysqlWanted&^mysqlProtocol41, "x")))), certs.ReasonClientFailed},
		"the client sends HTTP":     {greets, says("GET /secret HTTP/1.1\r\n\r\n"), certs.ReasonClientFailed},
		"the client leaves":         {greets, func(c mysqlPeer) { c.read(0); c.Conn.(*net.TCPConn).CloseWrite() }, certs.ReasonClientFailed},
		"the client leaves later": {asks("\x01\x04"), func(c mysqlPeer) {
			c.read(0)
			c.write(1, string(response))
			c.read(2)
			c.Conn.(*net.TCPConn).CloseWrite()
		}, certs.ReasonClientFailed},
		"the client stops later": {asks("\x01\x04"), func(c mysqlPeer) { c.read(0); c.write(1, string(response)); c.read(2); hold(c) }, certs.ReasonClientFailed},
		"the client encrypts with another key": {asks("\xfesha256_password\x00s\x00"), func(c mysqlPeer) {
			c.read(0)
			c.write(1, string(response))
			c.read(2)
			c.write(3, "\x01")
			c.read(4)
			c.write(5, strings.Repeat("x", 256))
			hold(c)
		}, certs.ReasonClientFailed},
		"the server is silent": {asks(), responds, certs.ReasonHandshakeTimeout},
		"the server leaves": {func(s mysqlPeer) {
			io.WriteString(s, mysqlGreetingOf(mysqlOffered, "x"))
			s.read(1)
			s.read(2)
			s.Conn.(*net.TCPConn).CloseWrite()
		}, responds, certs.ReasonPeerClosed},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		server, client := c.server, c.client
		if strings.Contains(name, "silent") || strings.Contains(name, "stops") {
			end := func() { cancel(context.DeadlineExceeded) }
			if strings.Contains(name, "server") {
				server = func(s mysqlPeer) { c.server(mysqlPeer{untilSilent{s.Conn, end}, t}) }
			} else {
				client = func(p mysqlPeer) { c.client(mysqlPeer{untilSilent{p.Conn, end}, t}) }
			}
		}
		if err := mysqlUpgrade(t, ctx, server, client); certs.Classify(err) != c.reason || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An upgrade ends with its context or with the connection, at each step.
func TestAMySQLUpgradeEnds(t *testing.T) {
	greeting := mysqlGreetingOf(mysqlOffered, "x")
	for _, said := range []string{"", greeting[:3], greeting[:20], greeting[:len(greeting)-1]} {
		says := func(then func(net.Conn)) net.Conn {
			return serve(t, func(c net.Conn) { io.WriteString(c, said); then(c) })
		}
		if err := MySQL.Upgrade(soon(t), says(hold)); certs.Classify(err) != certs.ReasonHandshakeTimeout || !strings.Contains(err.Error(), "waiting for the server: its greeting") {
			t.Errorf("stalls after %q: %v", said, err)
		}
		closes := func(c net.Conn) { c.(*net.TCPConn).CloseWrite(); hold(c) }
		if err := MySQL.Upgrade(t.Context(), says(closes)); certs.Classify(err) != certs.ReasonPeerClosed {
			t.Errorf("closes after %q: %v", said, err)
		}
	}
}

// A connection without a client, such as a health check's, requests TLS too.
func TestMySQLUpgradesWithoutAClient(t *testing.T) {
	conn := serve(t, func(c net.Conn) {
		io.WriteString(c, mysqlGreetingOf(mysqlOffered, "x"))
		if got := (mysqlPeer{c, t}).read(1); len(got) != 32 || got[1]&(mysqlSSL>>8) == 0 {
			t.Errorf("the request for TLS is %q", got)
		}
	})
	if err := MySQL.Upgrade(t.Context(), conn); err != nil {
		t.Error(err)
	}
	if greeting, err := MySQL.Greet(t.Context(), conn); greeting != nil || err != nil {
		t.Errorf("greeting %q, %v", greeting, err)
	}
	if !MySQL.ServerSpeaksFirst() || !MySQL.ServerGreets() || SMTP.ServerGreets() {
		t.Error("only MySQL's clients need the upstream's own greeting")
	}
}

func FuzzMySQLGreeting(f *testing.F) {
	fuzzDialect(f, func() dialect { return newMySQLClient(true) }, mysqlGreetingOf(mysqlOffered, "caching_sha2_password"), mysqlGreetingOf(0, ""), string(mysqlPacket(0, []byte("\xff\x10\x04no"))))
}

func FuzzMySQLClient(f *testing.F) {
	f.Add(mysqlResponseOf(mysqlWanted, "caching_sha2_password"), "\x02")
	f.Add(mysqlResponseOf(0xffffffff, ""), strings.Repeat("x", 256))
	key := new(Key)
	f.Fuzz(func(t *testing.T, response []byte, message string) {
		h := newMySQLHello(nil)
		if _, done, err := h.feed(mysqlPacket(1, response)); done && err == nil {
			if name := mysqlPlugin(h.response, "default"); name == "" {
				t.Fatal("no plugin")
			}
		}
		for _, secrets := range []mysqlSecrets{mysqlAsSent, mysqlKeyForClient, mysqlKeyOfServer} {
			for _, stage := range []mysqlStage{mysqlAnything, mysqlFull, mysqlSHA256, mysqlSecret} {
				a := mysqlAuth{secrets: secrets, stage: stage, scramble: []byte(mysqlScramble)}
				move, err := a.client([]byte(message), key)
				if err == nil && (move.to == mysqlNoSide || move.next == mysqlNoSide) {
					t.Fatalf("%d, stage %d: %+v", secrets, stage, move)
				}
				password := message != "" && message[0] != 0 && (stage == mysqlFull || stage == mysqlSHA256)
				if secrets == mysqlKeyOfServer && password && len(move.payload) != 1 {
					t.Fatalf("the password is sent unencrypted: %+v", move)
				}
			}
		}
		if message == "" {
			return
		}
		for _, stage := range []mysqlStage{mysqlAnything, mysqlKey} {
			a := mysqlAuth{plugin: "caching_sha2_password", stage: stage, password: []byte("secret\x00"), scramble: []byte(mysqlScramble), exposed: true}
			move, err := a.server([]byte(message))
			if err == nil && (move.to == mysqlNoSide || move.to == mysqlAtServer && bytes.Contains(move.payload, []byte("secret"))) {
				t.Fatalf("stage %d: %+v", stage, move)
			}
		}
	})
}
