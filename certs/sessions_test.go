package certs_test

import (
	"crypto/tls"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestClientResumes(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		server, o := mutual(t, certstest.NewCA(t))
		o.MaxVersion = version
		s, c := serveConfig(t, server), newClient(t, o)
		for i := range 4 {
			state, err := connect(t, c, s.addr)
			if err != nil {
				t.Fatal(err)
			}
			if state.Version != version {
				t.Fatalf("version %s", tls.VersionName(state.Version))
			}
			if state.DidResume != (i > 0) {
				t.Errorf("connection %d: resumed is %v", i, state.DidResume)
			}
			if at := <-s.shaken; at.state.DidResume != (i > 0) || at.state.PeerCertificates[0].Subject.CommonName != "client-a" {
				t.Errorf("connection %d: the server saw resumed %v by %v", i, at.state.DidResume, at.state.PeerCertificates[0].Subject)
			}
		}
	})
}
