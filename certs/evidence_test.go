package certs_test

import (
	"crypto/tls"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// Each handshake that verifies its peer counts for the anchor of the chain, resumed
// ones too, and those that fail count for none. A bundle that replaces another
// continues its records.
func TestEvidenceOfAnchors(t *testing.T) {
	before, after := certstest.NewCA(t), certstest.NewCA(t)
	both := parseTrust(t, append(before.TrustPEM(), after.TrustPEM()...))
	want := func(b *certs.TrustBundle, counts ...uint64) {
		t.Helper()
		for i, e := range b.Evidence() {
			if e.Verified != counts[i] || e.Last.IsZero() != (counts[i] == 0) || e.Since.IsZero() {
				t.Errorf("CA %d: %+v, want %d handshakes", i, e, counts[i])
			}
		}
	}
	want(both, 0, 0)
	server := func(ca *certstest.CA) *tlsServer {
		return serveConfig(t, &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "upstream.test"))}})
	}
	old, fresh := server(before), server(after)
	c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{both}})
	for range 2 {
		if _, err := connect(t, c, old.addr); err != nil {
			t.Fatal(err)
		}
	}
	want(both, 2, 0)
	if _, err := connect(t, newClient(t, certs.ClientOptions{ServerName: "other.test", Trust: []*certs.TrustBundle{both}}), fresh.addr); err == nil {
		t.Fatal("the wrong name verified")
	}
	want(both, 2, 0)

	next := parseTrust(t, append(after.TrustPEM(), before.TrustPEM()...))
	next.Inherit(both)
	want(next, 0, 2)
	if _, err := connect(t, newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{next}}), fresh.addr); err != nil {
		t.Fatal(err)
	}
	want(next, 1, 2)

	// Clients count too.
	listener := serve(t, newServer(t, certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, after.Server(t, "gate.test"))}, ClientAuth: certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{next},
	}).Conn)
	if _, _, err := reach(t, listener, &tls.Config{ServerName: "gate.test", RootCAs: after.Pool(), Certificates: []tls.Certificate{certstest.TLS(t, after.Client(t, "alice"))}}); err != nil {
		t.Fatal(err)
	}
	want(next, 2, 2)
}
