package upstream_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// listen runs handle for each connection until the test ends.
func listen(t testing.TB, network string, handle func(net.Conn)) net.Addr {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done; conns.Wait() })
	return ln.Addr()
}

// echoTLS echoes over TLS.
func echoTLS(config *tls.Config) func(net.Conn) {
	return func(conn net.Conn) { echoOn(tls.Server(conn, config)) }
}

// echoOn echoes everything it receives.
func echoOn(c net.Conn) { io.Copy(c, c) }

func newClient(t testing.TB, o certs.ClientOptions) *certs.Client {
	t.Helper()
	c, err := certs.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// exchange sends one byte and waits for its echo.
func exchange(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func only(t *testing.T, u *upstream.Upstream) upstream.EndpointStatus {
	t.Helper()
	s := u.Status()
	if len(s) != 1 {
		t.Fatalf("status of %d endpoints", len(s))
	}
	return s[0]
}

func TestDialPlaintext(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			addr := listen(t, network, func(c net.Conn) { io.Copy(c, c) })
			u := upstream.New(upstream.Options{Name: "u", Endpoints: []upstream.EndpointOptions{
				{Network: network, Address: addr.String()},
			}})
			if s := only(t, u); s.Health != upstream.Unknown || s.PeerCertificate != nil || s.LastFailure != nil {
				t.Errorf("before any attempt: %+v", s)
			}
			conn, e, err := u.Dial(t.Context(), upstream.Stream)
			if err != nil {
				t.Fatal(err)
			}
			if e.Network() != network || e.Address() != addr.String() {
				t.Errorf("dialed %s %s", e.Network(), e.Address())
			}
			exchange(t, conn)
			if s := only(t, u); s.Health != upstream.Up || s.Open != 1 || s.Made != 1 || s.Connects.Count != 1 || s.Handshakes.Count != 0 {
				t.Errorf("while open: %+v", s)
			}
			conn.Close()
			conn.Close()
			if s := only(t, u); s.Open != 0 || s.Made != 1 {
				t.Errorf("after closing: %+v", s)
			}
		})
	}
}

func TestDialSetsSocketOptions(t *testing.T) {
	addr := listen(t, "tcp", func(c net.Conn) { io.Copy(c, c) })
	u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{endpoint(addr.String(), 1)}})
	conn, _, err := u.Dial(t.Context(), upstream.Stream)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := socket.Of(conn).Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		noDelay, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
		keepAlive, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		if noDelay != 1 || keepAlive != 1 {
			t.Errorf("TCP_NODELAY %d, SO_KEEPALIVE %d, want both", noDelay, keepAlive)
		}
	})
}

func TestDialResumesAndCounts(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			ca := certstest.NewCA(t)
			addr := listen(t, "tcp", echoTLS(&tls.Config{
				Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))},
				MaxVersion:   version,
			}))
			o := certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}}
			u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{
				{Network: "tcp", Address: addr.String(), Stream: newClient(t, o), HTTP: newClient(t, o)},
			}})
			for range 3 {
				conn, _, err := u.Dial(t.Context(), upstream.Stream)
				if err != nil {
					t.Fatal(err)
				}
				exchange(t, conn) // reads the tickets too
				conn.Close()
			}
			conn, _, err := u.Dial(t.Context(), upstream.HTTP) // another purpose uses other sessions
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			s := only(t, u)
			if s.HandshakesFull != 2 || s.HandshakesResumed != 2 || s.Handshakes.Count != 4 || s.Handshakes.Total <= 0 {
				t.Errorf("full %d, resumed %d, timed %+v", s.HandshakesFull, s.HandshakesResumed, s.Handshakes)
			}
			if s.PeerCertificate == nil || len(s.PeerCertificate.SANs) == 0 || !strings.Contains(s.PeerCertificate.SANs[0], "up.test") {
				t.Errorf("peer certificate %+v", s.PeerCertificate)
			}
		})
	}
}

func TestDialFailuresSayWhereAndWhy(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	good := &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}}
	for _, test := range []struct {
		name   string
		handle func(net.Conn) // nil: nothing listens
		client certs.ClientOptions
		phase  string
		reason certs.Reason
	}{
		{"nothing listens", nil, certs.ClientOptions{}, "tcp", certs.ReasonConnectRefused},
		{"unknown CA", echoTLS(good), certs.ClientOptions{Trust: []*certs.TrustBundle{other.Trust(t)}}, "tls", certs.ReasonUnknownCA},
		{"another name", echoTLS(good), certs.ClientOptions{VerifyName: "other.test"}, "tls", certs.ReasonNameMismatch},
		{"plaintext before the handshake", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			io.Copy(io.Discard, c)
		}, certs.ClientOptions{}, "tls", certs.ReasonNotTLS},
		{"closed during the handshake", func(c net.Conn) { io.ReadFull(c, make([]byte, 5)) }, certs.ClientOptions{}, "tls", certs.ReasonPeerClosed},
		{"silence", func(c net.Conn) { io.Copy(io.Discard, c) }, certs.ClientOptions{}, "tls", certs.ReasonHandshakeTimeout},
		{"an old protocol", echoTLS(good), certs.ClientOptions{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "tls", certs.ReasonProtocolVersion},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.client.ServerName = "up.test"
			if test.client.Trust == nil {
				test.client.Trust = []*certs.TrustBundle{ca.Trust(t)}
			}
			address := sockettest.Free(t)
			if test.handle != nil {
				address = listen(t, "tcp", test.handle).String()
			}
			o := upstream.Options{Name: "payments", Endpoints: []upstream.EndpointOptions{
				{Network: "tcp", Address: address, Stream: newClient(t, test.client)},
			}}
			if test.reason == certs.ReasonHandshakeTimeout {
				o.HandshakeTimeout = 50 * time.Millisecond
			}
			var log bytes.Buffer
			o.Logger = hclog.New(&hclog.LoggerOptions{Output: &log, JSONFormat: true})
			u := upstream.New(o)
			_, _, err := u.Dial(t.Context(), upstream.Stream)
			var dial *upstream.DialError
			if !errors.As(err, &dial) {
				t.Fatalf("error %v is no DialError", err)
			}
			if dial.Upstream != "payments" || dial.Endpoint != address || dial.Phase != test.phase || dial.Reason != test.reason {
				t.Errorf("got %+v, want phase %s, reason %s", dial, test.phase, test.reason)
			}
			if r := certs.Classify(err); r != test.reason {
				t.Errorf("classified as %s, want %s", r, test.reason)
			}
			s := only(t, u)
			if s.Health != upstream.Down || s.Failures[test.reason] != 1 || s.Open != 0 || s.Made != 0 ||
				s.LastFailure == nil || s.LastFailure.Reason != test.reason || s.LastFailure.Message == "" {
				t.Errorf("status %+v", s)
			}
			refused := test.reason == certs.ReasonUnknownCA || test.reason == certs.ReasonNameMismatch
			if (s.PeerCertificate != nil) != refused || refused && s.PeerCertificate.SANs[0] != "DNS:up.test" {
				t.Errorf("presented: %+v", s.PeerCertificate)
			}
			if line := log.String(); strings.Count(line, "\n") != 1 || !strings.Contains(line, string(test.reason)) || !strings.Contains(line, address) {
				t.Errorf("logged %q", line)
			}
		})
	}
}

func TestDialMissingUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{{Network: "unix", Address: path}}})
	_, _, err := u.Dial(t.Context(), upstream.Stream)
	var dial *upstream.DialError
	if !errors.As(err, &dial) || dial.Phase != "unix" || dial.Reason != certs.ReasonConnectRefused {
		t.Errorf("got %#v", err)
	}
}

func TestDialTriesTheNextEndpoint(t *testing.T) {
	ca := certstest.NewCA(t)
	client := func() *certs.Client {
		return newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	}
	good := listen(t, "tcp", echoTLS(&tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}}))
	bad := listen(t, "tcp", echoTLS(&tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "other.test"))}}))
	ep := func(address string, backup bool) upstream.EndpointOptions {
		return upstream.EndpointOptions{Network: "tcp", Address: address, Stream: client(), Backup: backup}
	}
	t.Run("after a refused connection and a failed handshake", func(t *testing.T) {
		gone := sockettest.Free(t)
		u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{ep(gone, false), ep(bad.String(), false), ep(good.String(), true)}})
		for range 4 {
			conn, e, err := u.Dial(t.Context(), upstream.Stream)
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, conn)
			conn.Close()
			if e.Address() != good.String() {
				t.Errorf("dialed %s", e.Address())
			}
		}
		s := u.Status()
		if s[0].Failures[certs.ReasonConnectRefused] != 4 || s[1].Failures[certs.ReasonNameMismatch] != 4 || s[2].Made != 4 {
			t.Errorf("status %+v", s)
		}
	})
	t.Run("and a backup is not used while a primary serves", func(t *testing.T) {
		u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{ep(bad.String(), true), ep(good.String(), false)}})
		for range 4 {
			conn, _, err := u.Dial(t.Context(), upstream.Stream)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		if s := u.Status(); s[0].Connects.Count != 0 || s[1].Made != 4 {
			t.Errorf("status %+v", s)
		}
	})
	t.Run("until all have failed", func(t *testing.T) {
		gone := sockettest.Free(t)
		u := upstream.New(upstream.Options{Name: "u", Endpoints: []upstream.EndpointOptions{ep(gone, false), ep(bad.String(), false)}})
		_, _, err := u.Dial(t.Context(), upstream.Stream)
		for _, want := range []string{gone, bad.String()} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v does not name %s", err, want)
			}
		}
	})
	t.Run("unless no primary serves", func(t *testing.T) {
		_, _, err := upstream.New(upstream.Options{}).Dial(t.Context(), upstream.Stream)
		if err != upstream.ErrNoEndpoint {
			t.Errorf("got %v", err)
		}
	})
}

// A canceled dial proves nothing about the endpoint, and no other endpoint is
// tried.
func TestCanceledDialIsNotTheEndpointsFailure(t *testing.T) {
	ca := certstest.NewCA(t)
	ctx, cancel := context.WithCancel(t.Context())
	addr := listen(t, "tcp", func(c net.Conn) { cancel(); io.Copy(io.Discard, c) })
	client := newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: addr.String(), Stream: client},
		{Network: "tcp", Address: sockettest.Free(t), Stream: client},
	}})
	if _, _, err := u.Dial(ctx, upstream.Stream); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	for _, s := range u.Status() {
		if s.Health != upstream.Unknown || len(s.Failures) != 0 || s.Open != 0 {
			t.Errorf("status %+v", s)
		}
	}
}

func TestLateFailureIsCounted(t *testing.T) {
	addr := listen(t, "tcp", func(c net.Conn) { io.Copy(c, c) })
	u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{endpoint(addr.String(), 1)}})
	conn, e, err := u.Dial(t.Context(), upstream.Stream)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	e.NoteFailure(&certs.VerifyError{Reason: certs.ReasonClientCertificateRejected, Detail: "late\x1b[31m\n" + strings.Repeat("x", 10000)})
	e.NoteRequest()
	s := only(t, u)
	if s.Health != upstream.Down || s.Failures[certs.ReasonClientCertificateRejected] != 1 || s.Requests != 1 {
		t.Errorf("status %+v", s)
	}
	if m := s.LastFailure.Message; len(m) > 600 || strings.ContainsAny(m, "\x1b\n") {
		t.Errorf("message %q", m)
	}
}

// A TLS 1.3 upstream verifies our certificate after our side of the handshake:
// its alert is read even if we write to the closed connection repeatedly.
func TestAnAlertBeforeACloseIsRead(t *testing.T) {
	ca := certstest.NewCA(t)
	config := &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}
	gone := make(chan struct{})
	addr := listen(t, "tcp", func(conn net.Conn) {
		_ = tls.Server(conn, config).Handshake()
		conn.Close()
		close(gone)
	})
	c := newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	u := upstream.New(upstream.Options{Name: "up", Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: addr.String(), HTTP: c}}})
	conn, _, err := u.Dial(t.Context(), upstream.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-gone
	for range 1000 {
		if _, err := conn.Write([]byte("more")); err != nil {
			t.Fatalf("before anything was read Write fails with %v", err)
		}
	}
	if _, err := conn.Read(make([]byte, 1)); certs.Classify(err) != certs.ReasonClientCertificateRequired {
		t.Errorf("Read: %v, want that a certificate is required", err)
	}
}

// A flood of failures is counted in full and logged in part.
func TestLoggingOfEqualFailuresIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		u := upstream.New(upstream.Options{
			Endpoints: []upstream.EndpointOptions{endpoint("a:1", 1)},
			Logger:    hclog.New(&hclog.LoggerOptions{Output: &log, JSONFormat: true}),
		})
		e := u.Endpoints()[0]
		for range 1000 {
			e.NoteFailure(syscall.ECONNREFUSED)
			e.NoteFailure(syscall.ECONNRESET)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Fatalf("%d lines for two reasons", n)
		}
		log.Reset()
		time.Sleep(10 * time.Second) // time in the bubble passes at once
		e.NoteFailure(syscall.ECONNREFUSED)
		e.NoteFailure(syscall.ECONNREFUSED)
		if line := log.String(); strings.Count(line, "\n") != 1 || !strings.Contains(line, `"suppressed":999`) {
			t.Errorf("logged %q", line)
		}
		if s := only(t, u); s.Failures[certs.ReasonConnectRefused] != 1002 || s.Failures[certs.ReasonPeerClosed] != 1000 {
			t.Errorf("counted %v", s.Failures)
		}
	})
}
