package policy

import (
	"crypto/x509"
	"fmt"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// On a plaintext listener the gateway knows no client certificate, so the upstream
// receives nothing about one.
func TestPlaintextSendsNoCertificateFields(t *testing.T) {
	for _, kind := range []ClientCertificateFields{SendNoCertificate, SendIdentity, SendCertificate} {
		x := factsOf("10.0.0.1:1", message.Fields{{Name: "Client_Cert", Value: "x"}, {Name: "X-CLIENT-CERT-SUBJECT", Value: "x"}})
		CleanRequest(x.Request, &Spelling{})
		x.SetCertificate(kind)
		if len(x.Request.Fields) > 0 {
			t.Errorf("%v", x.Request.Fields)
		}
	}
}

// The identity for upstreams is built once per connection, even by concurrent
// requests.
func TestAnIdentityIsAllocatedOnce(t *testing.T) {
	c := &clientCertificate{leaf: certstest.NewCA(t).Client(t, "gateway").Leaf}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { c.identity(); c.encodedField() })
	}
	all.Wait()
	x := factsOf("10.0.0.1:1", make(message.Fields, 0, 8))
	x.Connection.Session.certificate = c
	for _, kind := range []ClientCertificateFields{SendIdentity, SendCertificate} {
		alloctest.Want(t, fmt.Sprint("kind ", kind), 0, func() {
			x.Request.Fields = x.Request.Fields[:0]
			x.SetCertificate(kind)
		})
		if len(x.Request.Fields) == 0 {
			t.Errorf("kind %d: no field was added", kind)
		}
	}
	large := &clientCertificate{leaf: &x509.Certificate{Raw: make([]byte, maxEncoded+1)}}
	if large.encodedField() != "" {
		t.Error("a certificate that is too large is forwarded")
	}
}
