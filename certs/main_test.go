package certs_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A tlsServer accepts connections on loopback, completes the handshake, sends
// one byte and waits for the client to close. A TLS 1.3 client that reads the
// byte has its tickets.
type tlsServer struct {
	addr       string
	handshakes chan handshakeResult // one for each connection
}

type handshakeResult struct {
	state tls.ConnectionState
	err   error
}

// serve runs a server until the test ends. wrap turns a raw connection into
// the server side of a TLS connection.
func serve(t testing.TB, wrap func(net.Conn) *tls.Conn) *tlsServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &tlsServer{addr: l.Addr().String(), handshakes: make(chan handshakeResult, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			raw.SetDeadline(time.Now().Add(time.Minute))
			c := wrap(raw)
			err = c.Handshake()
			s.handshakes <- handshakeResult{c.ConnectionState(), err}
			if err == nil {
				c.Write([]byte("x"))
				io.Copy(io.Discard, c)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return s
}

func serveConfig(t testing.TB, config *tls.Config) *tlsServer {
	return serve(t, func(raw net.Conn) *tls.Conn { return tls.Server(raw, config) })
}

// connect completes the handshake and reads the server's byte. It also returns
// an error of the first read, because a TLS 1.3 server rejects a client
// certificate only then.
func connect(t testing.TB, c *certs.Client, addr string) (tls.ConnectionState, error) {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := c.Handshake(ctx, raw)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	raw.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return conn.ConnectionState(), err
	}
	state := conn.ConnectionState()
	return state, conn.Close()
}

func newClient(t testing.TB, o certs.ClientOptions) *certs.Client {
	t.Helper()
	c, err := certs.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newServer(t testing.TB, o certs.ServerOptions) *certs.Server {
	t.Helper()
	s, err := certs.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantReason fails the test unless err is classified as want.
func wantReason(t testing.TB, err error, want certs.Reason) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want reason %s", want)
	}
	if got := certs.Classify(err); got != want {
		t.Fatalf("reason %s, want %s: %v", got, want, err)
	}
}

// wantFault fails the test unless err is Faults with one fault of field.
func wantFault(t testing.TB, err error, field string) certs.Fault {
	t.Helper()
	var faults certs.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error %v is not Faults", err)
	}
	for _, f := range faults {
		if f.Field == field {
			return f
		}
	}
	t.Fatalf("no fault about %q in %v", field, faults)
	return certs.Fault{}
}

// bothVersions runs a test under TLS 1.2 and under TLS 1.3.
func bothVersions(t *testing.T, test func(t *testing.T, version uint16)) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(v), func(t *testing.T) { test(t, v) })
	}
}

// mutual returns a server configuration and client options that trust each
// other, with certificates on both sides.
func mutual(t testing.TB, ca *certstest.CA) (*tls.Config, certs.ClientOptions) {
	t.Helper()
	server := &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "upstream.test"))},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    ca.Pool(),
	}
	client := certs.ClientOptions{
		Certificate: certstest.Certificate(t, ca.Client(t, "client-a")),
		Trust:       []*certs.TrustBundle{ca.Trust(t)},
		ServerName:  "upstream.test",
	}
	return server, client
}

// leaf issues a certificate with options o as a tls.Certificate.
func leaf(t testing.TB, ca *certstest.CA, o pki.LeafOptions) tls.Certificate {
	t.Helper()
	return certstest.TLS(t, ca.Leaf(t, o))
}
