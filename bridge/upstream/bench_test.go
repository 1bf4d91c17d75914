package upstream_test

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// BenchmarkDial makes a connection, exchanges a byte and closes it, including
// the server's work.
func BenchmarkDial(b *testing.B) {
	ca := certstest.NewCA(b)
	config := &tls.Config{
		Certificates:     []tls.Certificate{certstest.TLS(b, ca.Server(b, "up.test"))},
		ClientAuth:       tls.RequireAndVerifyClientCert,
		ClientCAs:        ca.Pool(),
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
	for _, bench := range []struct {
		name           string
		plain, noReuse bool
	}{{"plaintext", true, false}, {"resumed", false, false}, {"full", false, true}} {
		b.Run(bench.name, func(b *testing.B) {
			handle := func(c net.Conn) { echoOn(c) }
			o := upstream.EndpointOptions{Network: "tcp"}
			if !bench.plain {
				handle = echoTLS(config)
				o.Stream = newClient(b, certs.ClientOptions{
					ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(b)}, NoSessionReuse: bench.noReuse,
					Certificate: certstest.Certificate(b, ca.Client(b, "c")),
				})
			}
			o.Address = listen(b, "tcp", handle).String()
			u := upstream.New(upstream.Options{Endpoints: []upstream.EndpointOptions{o}})
			dial := func() {
				conn, _, err := u.Dial(b.Context(), upstream.Stream)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := conn.Write([]byte("x")); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					b.Fatal(err)
				}
				conn.Close()
			}
			dial() // gets the first ticket
			b.ReportAllocs()
			for b.Loop() {
				dial()
			}
			if s := u.Status()[0]; !bench.plain && (s.HandshakesResumed > 0) == bench.noReuse {
				b.Errorf("%d handshakes were resumed", s.HandshakesResumed)
			}
		})
	}
}
