package probe_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// The answer of an endpoint without TLS is quoted, escaped and truncated.
func TestAnEndpointWithoutTLSIsQuoted(t *testing.T) {
	ca := certstest.NewCA(t)
	_, o := mutual(t, ca)
	after := func(answer string) func(net.Conn) {
		return func(c net.Conn) {
			c.Read(make([]byte, 1))
			io.WriteString(c, answer)
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		}
	}
	for _, c := range []struct {
		name  string
		peer  func(net.Conn)
		facts []string
	}{
		{"HTTP", after("HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\nno"), []string{`it answered "HTTP/1.1 400 Bad Request"`, "HTTP in plaintext"}},
		{"an SSH banner", func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n"); io.Copy(io.Discard, c) }, []string{`"SSH-2.0-OpenSSH_9.2"`, "as SSH does"}},
		{"SMTP", func(c net.Conn) { io.WriteString(c, "220 mail.test ESMTP\r\n"); io.Copy(io.Discard, c) }, []string{`"220 mail.test ESMTP"`}},
		{"a banner in pieces", func(c net.Conn) {
			for _, b := range []byte("-ERR unknown\r\n") {
				c.Write([]byte{b})
			}
			io.Copy(io.Discard, c)
		}, []string{`"-ERR unknown"`, "as Redis does"}},
		{"terminal escape sequences", after("\x1b[31mred\x00\xff\u202e\r\n"), []string{`\x1b[31mred\x00\xff\u202e`}},
		{"a banner without an end", func(c net.Conn) {
			c.Read(make([]byte, 1))
			chunk := bytes.Repeat([]byte("A"), 4096)
			for {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		}, []string{strings.Repeat("A", 120) + "…"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, serve(t, listen(t), c.peer), o)
			want(t, r, certs.ReasonNotTLS, append(c.facts, "does not speak TLS"), []string{"endpoints[0].address", "plaintext"})
			if strings.Contains(r.Explanation, strings.Repeat("A", 121)) || len(r.Attempts) != 0 {
				t.Errorf("%s %v", r.Explanation, r.Attempts)
			}
		})
	}
}

func TestAnEndpointThatClosesOrIsSilent(t *testing.T) {
	ca := certstest.NewCA(t)
	_, o := mutual(t, ca)
	short := func(p *probe.Target) { p.HandshakeTimeout = 30 * time.Millisecond }
	for _, c := range []struct {
		name   string
		peer   func(*net.TCPConn)
		change []func(*probe.Target)
		reason certs.Reason
		facts  []string
		advice []string
	}{
		{"closes", func(c *net.TCPConn) { c.Read(make([]byte, 4096)); c.CloseWrite(); io.Copy(io.Discard, c) }, nil,
			certs.ReasonPeerClosed, []string{"closed the connection", "before it sent anything"}, []string{"endpoints[0].address"}},
		{"fails with internal_error", func(c *net.TCPConn) {
			c.Read(make([]byte, 4096))
			c.Write([]byte{21, 3, 3, 0, 2, 2, 80}) // internal_error
			io.Copy(io.Discard, c)
		}, nil, certs.ReasonOther, []string{"internal error"}, []string{"upstream's log"}},
		{"resets", func(c *net.TCPConn) { c.Read(make([]byte, 1)); c.SetLinger(0) }, nil,
			certs.ReasonPeerClosed, []string{"reset the connection"}, []string{"upstream's log"}},
		{"sends half a record", func(c *net.TCPConn) {
			c.Write([]byte{22, 3, 3, 0, 80, 2})
			c.CloseWrite()
			io.Copy(io.Discard, c)
		}, nil, certs.ReasonPeerClosed, []string{"after 6 bytes"}, nil},
		{"says nothing", func(c *net.TCPConn) { io.Copy(io.Discard, c) }, []func(*probe.Target){short},
			certs.ReasonHandshakeTimeout, []string{"within 30ms (timeouts.handshake)", "sent nothing"}, []string{"timeouts.handshake", "plaintext"}},
		{"trickles", func(c *net.TCPConn) {
			for _, b := range append([]byte{22, 3, 3, 64, 0, 2, 0, 63, 252}, make([]byte, 16380)...) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}, []func(*probe.Target){short}, certs.ReasonHandshakeTimeout, []string{"stopping after"}, []string{"timeouts.handshake"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := serve(t, listen(t), func(conn net.Conn) { c.peer(conn.(*net.TCPConn)) })
			r := run(t, addr, o, c.change...)
			for limit := 4 * 30 * time.Millisecond; c.name == "trickles" && strings.Contains(r.Explanation, "sent nothing") && limit < time.Minute; limit *= 4 {
				// A busy machine stalled for as long as the limit before the first byte.
				r = run(t, addr, o, func(p *probe.Target) { p.HandshakeTimeout = limit })
			}
			want(t, r, c.reason, append(c.facts, addr), c.advice)
			if len(r.Attempts) == 0 {
				t.Error("nothing else was tried")
			}
		})
	}
}

func TestAnEndpointThatCannotBeReached(t *testing.T) {
	ca := certstest.NewCA(t)
	_, o := mutual(t, ca)
	free := sockettest.Free(t)
	want(t, run(t, free, o), certs.ReasonConnectRefused, []string{"nothing listens at " + free}, []string{"endpoints[0].address"})

	socket := filepath.Join(t.TempDir(), "no.sock")
	r := run(t, socket, o, func(p *probe.Target) { p.Network = "unix" })
	want(t, r, certs.ReasonConnectRefused, []string{socket}, []string{"endpoints[0].address"})

	r = run(t, "no-such-host.invalid:443", o)
	want(t, r, certs.ReasonDNSFailure, []string{"no-such-host.invalid", "does not resolve"}, []string{"endpoints[0].address"})

	// TCP has no multicast, so a host without other networks has no route.
	r = run(t, "224.0.0.1:443", o)
	want(t, r, certs.ReasonUnreachable, []string{"no route to 224.0.0.1:443", "network is unreachable"}, []string{"endpoints[0].address"})

	// The deadline passed before the kernel could answer.
	r = run(t, "192.0.2.1:443", o, func(p *probe.Target) { p.ConnectTimeout = time.Nanosecond })
	want(t, r, certs.ReasonConnectTimeout, []string{"192.0.2.1:443", "timeouts.connect"}, []string{"timeouts.connect"})
	if r.RemoteAddress != "" || len(r.Chain) != 0 {
		t.Errorf("connected to %q", r.RemoteAddress)
	}
}

func TestPlaintextIsOnlyConnectedTo(t *testing.T) {
	received := make(chan []byte, 1)
	addr := serve(t, listen(t), func(c net.Conn) {
		b, _ := io.ReadAll(c)
		received <- b
	})
	r := runTarget(t, probe.Target{Network: "tcp", Address: addr, Field: "endpoints[0]"})
	want(t, r, "", []string{addr, "plaintext"}, nil)
	if b := <-received; len(b) != 0 {
		t.Errorf("%q was sent", b)
	}
}

func TestAUnixSocketIsProbed(t *testing.T) {
	ca := certstest.NewCA(t)
	server, o := mutual(t, ca)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c net.Conn) {
		if tc := tls.Server(c, server); tc.Handshake() == nil {
			tc.Read(make([]byte, 1))
		}
	})
	r := run(t, path, o, func(p *probe.Target) { p.Network = "unix" })
	want(t, r, "", []string{"unix:" + path}, nil)
	if r.RemoteAddress != "unix:"+path {
		t.Errorf("address %q", r.RemoteAddress)
	}
}

// The context bounds a probe, for any timeouts.
func TestAProbeEndsWithItsContext(t *testing.T) {
	ca := certstest.NewCA(t)
	_, o := mutual(t, ca)
	connected := make(chan struct{})
	addr := serve(t, listen(t), func(c net.Conn) {
		c.Read(make([]byte, 1))
		close(connected)
		io.Copy(io.Discard, c)
	})
	target := probe.Target{Network: "tcp", Address: addr, Field: "endpoints[0]", Client: client(t, o), HandshakeTimeout: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan *probe.Result)
	go func() { done <- probe.Run(ctx, target) }()
	<-connected
	cancel()
	if r := <-done; r.OK() || len(r.Attempts) != 0 {
		t.Errorf("%+v", r)
	}

	addr = serve(t, listen(t), func(c net.Conn) { io.Copy(io.Discard, c) })
	target.Address = addr
	var r *probe.Result
	for limit := 50 * time.Millisecond; limit < time.Minute; limit *= 4 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if r = probe.Run(ctx, target); r.Reason != certs.ReasonConnectTimeout {
			break // otherwise a busy machine stalled for that long before it was connected
		}
	}
	want(t, r, certs.ReasonHandshakeTimeout, []string{"before the end of the probe", "1h0m0s"}, nil)
}

// Hostile certificates cause neither long texts nor long computations.
func TestAHostileCertificateIsBounded(t *testing.T) {
	ca := certstest.NewCA(t)
	_, o := mutual(t, ca)
	var names []string
	for i := range 8000 {
		names = append(names, fmt.Sprintf("n%d.example", i))
	}
	many := selfSigned(t, &x509.Certificate{Subject: pkix.Name{CommonName: "many"}, DNSNames: names})
	odd := selfSigned(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "\x1b[2J\nCN=good" + strings.Repeat("x", 5000)}, DNSNames: []string{"a.example"},
		IssuingCertificateURL: []string{"http://a.example/\x07" + strings.Repeat("y", 5000)},
	})
	chain := selfSigned(t, &x509.Certificate{Subject: pkix.Name{CommonName: "one of many"}})
	for range 99 {
		chain.Certificate = append(chain.Certificate, chain.Certificate[0])
	}
	for name, cert := range map[string]tls.Certificate{"8000 names": many, "a text for terminals": odd, "a chain of 100": chain} {
		t.Run(name, func(t *testing.T) {
			addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{cert}})
			r := run(t, addr, o)
			want(t, r, certs.ReasonUnknownCA, []string{"self-signed"}, []string{"tls.trust_bundles"})
			if len(r.Chain) == 0 || len(r.Chain) > 20 || len(r.Chain[0].SANs) > 100 {
				t.Errorf("a chain of %d", len(r.Chain))
			}
			pin := o
			pin.Verification = certs.VerifyReportOnly
			want(t, run(t, addr, pin), "", []string{"REPORT_ONLY"}, nil)
		})
	}
}

func selfSigned(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	return issuedBy(t, "", template)
}

// issuedBy returns a certificate signed by an unknown CA with the given name
// or, without a name, a self-signed one.
func issuedBy(t *testing.T, ca string, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent := template
	if ca != "" {
		parent = &x509.Certificate{Subject: pkix.Name{CommonName: ca}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
