package upstream_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// startsTLS answers SSLRequest, and then serves next.
func startsTLS(answer string, next func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
			return
		}
		io.WriteString(c, answer)
		if next != nil {
			next(c)
		} else {
			io.Copy(io.Discard, c)
		}
	}
}

// Traffic, both kinds of health checks and warm connections start TLS in the
// same way.
func TestEveryConnectionStartsTLS(t *testing.T) {
	ca := certstest.NewCA(t)
	good := startsTLS("S", echoTLS(&tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}}))
	for name, c := range map[string]struct {
		handle func(net.Conn)
		reason certs.Reason
	}{
		"starts TLS":                   {good, ""},
		"refuses":                      {startsTLS("N", nil), certs.ReasonSTARTTLSRefused},
		"injects a byte":               {startsTLS("SX", nil), certs.ReasonSTARTTLSInjection},
		"agrees and stays plaintext":   {startsTLS("S", func(c net.Conn) { c.Read(make([]byte, 1)); io.WriteString(c, "plaintext\n"); io.Copy(io.Discard, c) }), certs.ReasonSTARTTLSInjection},
		"closes":                       {startsTLS("", func(c net.Conn) { c.Close() }), certs.ReasonPeerClosed},
		"stalls":                       {startsTLS("", nil), certs.ReasonHandshakeTimeout},
		"stalls during the handshake":  {startsTLS("S", nil), certs.ReasonHandshakeTimeout},
		"begins with TLS":              {echoTLS(&tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}}), certs.ReasonPeerClosed},
		"presents another certificate": {startsTLS("S", echoTLS(&tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "other.test"))}})), certs.ReasonNameMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := upstream.Options{Starttls: starttls.Postgres, Endpoints: []upstream.EndpointOptions{{
				Network: "tcp", Address: listen(t, "tcp", c.handle).String(),
				Stream: newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}}),
			}}}
			if c.reason == certs.ReasonHandshakeTimeout {
				o.HandshakeTimeout = 20 * time.Millisecond
			}
			u := upstream.New(o)
			conn, _, err := u.Dial(t.Context(), upstream.Stream)
			if upstream.ReasonOf(err) != c.reason {
				t.Errorf("dial: %v", err)
			}
			if err == nil {
				exchange(t, conn)
				conn.Close()
				again, _, err := u.Dial(t.Context(), upstream.Stream) // resumes the session
				if err != nil {
					t.Fatal(err)
				}
				exchange(t, again)
				again.Close()
				if s := only(t, u); s.HandshakesFull != 1 || s.HandshakesResumed != 1 {
					t.Errorf("%d full handshakes, %d resumed", s.HandshakesFull, s.HandshakesResumed)
				}
			} else if de, ok := errors.AsType[*upstream.DialError](err); !ok || de.Phase != "tls" || strings.Contains(err.Error(), "\n") {
				t.Errorf("dial: %#v", err)
			}
			if s := only(t, u); s.Open != 0 {
				t.Errorf("%d connections are open", s.Open)
			}
			e := u.Endpoints()[0]
			if err := e.CheckHandshake(t.Context(), upstream.Stream, ""); upstream.ReasonOf(err) != c.reason {
				t.Errorf("check of the handshake: %v", err)
			}
			checked, err := e.CheckDial(t.Context(), upstream.Stream, "")
			if upstream.ReasonOf(err) != c.reason {
				t.Errorf("check: %v", err)
			}
			if err == nil {
				exchange(t, checked)
				checked.Close()
			}
		})
	}
	u := warm(t, upstream.Options{Warm: 2, Starttls: starttls.Postgres, Endpoints: []upstream.EndpointOptions{{
		Network: "tcp", Address: listen(t, "tcp", good).String(),
		Stream: newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}}),
	}}})
	ready(t, u, 2)
	conn, _, err := u.Dial(t.Context(), upstream.Stream)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := echoed(conn, "hello"); err != nil {
		t.Error(err)
	}
}

// A client that waits for a greeting gets one that the server has confirmed
// over TLS, or none if the server refuses over TLS.
func TestTheGreetingComesFromTheServerOverTLS(t *testing.T) {
	ca := certstest.NewCA(t)
	config := &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}}
	serve := func(secured string) string {
		return listen(t, "tcp", func(c net.Conn) {
			for i, s := range []string{"220 anyone.test\r\n", "250-a\r\n250 STARTTLS\r\n", "220 go\r\n", secured} {
				if i == 3 {
					c = tls.Server(c, config)
				}
				if i > 0 {
					if _, err := c.Read(make([]byte, 100)); err != nil {
						return
					}
				}
				io.WriteString(c, s)
			}
			io.Copy(c, c)
		}).String()
	}
	for secured, want := range map[string]string{"250 mx.test\r\n": "220 mx.test ESMTP\r\n", "550 not for you\r\n": ""} {
		u := upstream.New(upstream.Options{Warm: 1, Starttls: starttls.SMTP, Endpoints: []upstream.EndpointOptions{{
			Network: "tcp", Address: serve(secured), Stream: newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}}),
		}}})
		start(t, u)
		var turn upstream.Turn
		turn.Begin(u, upstream.Key{})
		conn, _, err := turn.Dial(t.Context(), upstream.Stream, "")
		if got := string(turn.Greeting()); got != want || (err == nil) != (want != "") {
			t.Errorf("greeting %q, %v", got, err)
		}
		if err == nil {
			exchange(t, conn)
			conn.Close()
		} else if upstream.ReasonOf(err) != certs.ReasonSTARTTLSRefused {
			t.Error(err)
		}
		turn.End()
		if s := only(t, u); s.Open != 0 || s.Warm != nil {
			t.Errorf("%+v", s)
		}
	}
}
