package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A request may be given an HTTP/2 connection that was dialled for another: the
// refusal it dies of is told to both.
func TestARefusalIsToldOfASharedConnection(t *testing.T) {
	ca := certstest.NewCA(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = tls.Server(conn, &tls.Config{
			Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}, MinVersion: tls.VersionTLS13,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
		}).HandshakeContext(context.Background())
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{ServerName: "up.test", RootCAs: ca.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-done

	for text, want := range map[string]certs.Reason{
		"http2: client conn could not be established":                certs.ReasonClientCertificateRequired,
		"http2: client connection force closed via ClientConn.Close": certs.ReasonClientCertificateRequired,
		"http2: response body closed":                                certs.ReasonOther, // the connection may live
	} {
		x := &exchange{}
		x.shared.Store(conn)
		if got := certs.Classify(x.refusal(errors.New(text))); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
