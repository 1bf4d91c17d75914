package certs_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// BenchmarkHandshake measures both ends of a mutual handshake over loopback.
func BenchmarkHandshake(b *testing.B) {
	for _, bench := range []struct {
		name    string
		version uint16
		noReuse bool
	}{
		{"full/TLS 1.2", tls.VersionTLS12, true},
		{"full/TLS 1.3", tls.VersionTLS13, true},
		{"resumed/TLS 1.2", tls.VersionTLS12, false},
		{"resumed/TLS 1.3", tls.VersionTLS13, false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			server, o := mutual(b, certstest.NewCA(b))
			o.MaxVersion, o.NoSessionReuse = bench.version, bench.noReuse
			o.Groups = []tls.CurveID{tls.X25519}
			addr, c := serveAtOnce(b, server), newClient(b, o)
			first := true
			b.ReportAllocs()
			for b.Loop() {
				conn := open(b, c, addr)
				if got := conn.ConnectionState().DidResume; got == (bench.noReuse || first) {
					b.Fatalf("resumed is %v", got)
				}
				first = false
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					b.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}

// BenchmarkHandshakeInParallel shows whether each of many concurrent
// connections finds a session.
func BenchmarkHandshakeInParallel(b *testing.B) {
	server, o := mutual(b, certstest.NewCA(b))
	o.Groups = []tls.CurveID{tls.X25519}
	addr, c := serveAtOnce(b, server), newClient(b, o)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			conn := open(b, c, addr)
			io.ReadFull(conn, make([]byte, 1))
			conn.Close()
		}
	})
}

// BenchmarkHandshakeSetUp measures the work of a Client before the first byte.
// The peer has already closed.
func BenchmarkHandshakeSetUp(b *testing.B) {
	c := newClient(b, certs.ClientOptions{ServerName: "a.test", Verification: certs.VerifyInsecureSkip})
	b.ReportAllocs()
	for b.Loop() {
		near, far := net.Pipe()
		far.Close()
		c.Handshake(context.Background(), near)
		near.Close()
	}
}

func BenchmarkParseCipherSuites(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		certs.ParseCipherSuites([]string{"HIGH:!aNULL:!MD5"})
	}
}
