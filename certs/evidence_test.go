package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// Each handshake that verifies its peer counts for the anchor of the chain,
// including resumed handshakes. A failed handshake counts for no anchor. A bundle
// that replaces another continues its records.
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
		t.Fatal("a certificate for another name was accepted")
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
	options := certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, after.Server(t, "gate.test"))}, ClientAuth: certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{next},
	}
	clients := newServer(t, options)
	listener := serve(t, clients.Conn)
	if _, _, err := reach(t, listener, &tls.Config{ServerName: "gate.test", RootCAs: after.Pool(), Certificates: []tls.Certificate{certstest.TLS(t, after.Client(t, "alice"))}}); err != nil {
		t.Fatal(err)
	}
	want(next, 2, 2)

	// Each endpoint and each listener has its own record, which its replacement
	// continues.
	uses := func(what string, got []certs.AnchorUse, wanted ...*certstest.CA) {
		t.Helper()
		if len(got) != len(wanted) {
			t.Fatalf("%s: verified by %d CAs, want %d", what, len(got), len(wanted))
		}
		for i, u := range got {
			if !u.Anchor.Equal(wanted[i].Root().Certificate()) || u.Last.IsZero() || u.Verified == 0 {
				t.Errorf("%s: %d. verified by %s, %d times", what, i, u.Subject(), u.Verified)
			}
		}
	}
	uses("the old server", certs.AnchorUses(c.Anchors()), before)
	uses("clients", certs.AnchorUses(clients.Anchors()), after)
	options.Replaces, options.MinVersion = clients, tls.VersionTLS13
	uses("clients of the next revision", certs.AnchorUses(newServer(t, options).Anchors()), after)
	replacement := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{next}, Replaces: c})
	if _, err := connect(t, replacement, fresh.addr); err != nil {
		t.Fatal(err)
	}
	uses("the server that moved", certs.AnchorUses(replacement.Anchors()), after, before)
	uses("two logs", certs.AnchorUses(clients.Anchors(), c.Anchors()), after, before)
	want(next, 3, 2)

	// Verifying a live client again does not count as a use of its CA.
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{after.Client(t, "bob").Leaf}}
	if err := clients.Admits(state); err != nil {
		t.Error(err)
	}
	if _, failure := certs.NewServers(clients).Reverify(certs.NewServers(clients).Peer(state)); failure != nil {
		t.Error(failure)
	}
	want(next, 3, 2)
}

// An AnchorLog keeps the most recently used anchors.
func TestAnAnchorLogIsBounded(t *testing.T) {
	log, at := new(certs.AnchorLog), time.Unix(1000, 0)
	for i := range 100 {
		anchor := &x509.Certificate{Raw: []byte{byte(i)}}
		for range 2 {
			at = at.Add(time.Second)
			log.Note(anchor, at)
		}
	}
	log.Note(nil, at)
	uses := certs.AnchorUses(log)
	if len(uses) != 32 || uses[0].Anchor.Raw[0] != 99 || uses[31].Anchor.Raw[0] != 68 || uses[0].Verified != 2 || !uses[0].Last.Equal(at) {
		t.Errorf("%d anchors, first %v", len(uses), uses[0])
	}
}
