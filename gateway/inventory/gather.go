package inventory

import (
	"strconv"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A gathering collects certificates in use. The certificates of one resource are
// consecutive.
type gathering struct{ found []inUse }

// resource adds the certificates of a Certificate or TrustBundle.
func (g *gathering) resource(snap *snapshot.Snapshot, ref store.Ref) {
	switch ref.Kind {
	case adminv1.Kind_KIND_CERTIFICATE:
		if c := snap.Certificate(ref.Name); c != nil {
			g.certificate(ref.Name, c)
		}
	case adminv1.Kind_KIND_TRUST_BUNDLE:
		if b := snap.TrustBundle(ref.Name); b != nil {
			g.bundle(ref.Name, b)
		}
	}
}

func (g *gathering) certificate(name string, c *certs.Certificate) {
	g.own(adminv1.CertificateUse_CERTIFICATE_USE_OWN, adminv1.Kind_KIND_CERTIFICATE, name, c)
}

// bundle adds the CAs of a trust bundle, in its order, and then its revocation lists.
func (g *gathering) bundle(name string, b *certs.TrustBundle) {
	g.cas(adminv1.CertificateUse_CERTIFICATE_USE_TRUST, adminv1.Kind_KIND_TRUST_BUNDLE, name, b)
	g.crls(adminv1.CertificateUse_CERTIFICATE_USE_CRL, adminv1.Kind_KIND_TRUST_BUNDLE, name, b)
}

// adminService adds the certificates of the admin API, if it uses TLS.
func (g *gathering) adminService(a AdminTLS) {
	if a == nil {
		return
	}
	const use, kind = adminv1.CertificateUse_CERTIFICATE_USE_ADMIN, adminv1.Kind_KIND_UNSPECIFIED
	g.own(use, kind, adminName, a.Certificate())
	g.cas(use, kind, adminName, a.Trust())
	g.crls(use, kind, adminName, a.Trust())
}

// endpoint adds the certificate that an endpoint of an upstream last presented.
func (g *gathering) endpoint(name string, e upstream.EndpointStatus) {
	if len(e.PeerChain) == 0 || e.Left {
		return
	}
	g.add(adminv1.CertificateUse_CERTIFICATE_USE_UPSTREAM, adminv1.Kind_KIND_UPSTREAM, name, snapshot.EndpointAddress(e),
		certs.FingerprintOf(e.PeerChain[0]), e.PeerChain[0].NotAfter,
		func() *adminv1.CertificateInfo { return snapshot.CertificateInfo(certs.Describe(e.PeerChain)) })
}

func (g *gathering) add(use adminv1.CertificateUse, kind adminv1.Kind, name, endpoint, fingerprint string, end time.Time, info func() *adminv1.CertificateInfo) {
	g.found = append(g.found, inUse{
		admin.CertificateKey{NotAfter: end.Unix(), Use: use, Name: name, Fingerprint: fingerprint, Endpoint: endpoint},
		store.Ref{Kind: kind, Name: name}, info, nil,
	})
}

func (g *gathering) own(use adminv1.CertificateUse, kind adminv1.Kind, name string, c *certs.Certificate) {
	g.add(use, kind, name, "", c.Fingerprint(), c.Leaf().NotAfter, func() *adminv1.CertificateInfo { return snapshot.CertificateInfo(c.Info()) })
}

func (g *gathering) cas(use adminv1.CertificateUse, kind adminv1.Kind, name string, b *certs.TrustBundle) {
	infos := sync.OnceValue(b.Infos)
	for i, ca := range b.Certificates() {
		g.add(use, kind, name, "", certs.FingerprintOf(ca), ca.NotAfter, func() *adminv1.CertificateInfo { return snapshot.CertificateInfo(infos()[i]) })
	}
}

func (g *gathering) crls(use adminv1.CertificateUse, kind adminv1.Kind, name string, b *certs.TrustBundle) {
	for i, crl := range b.CRLInfos() {
		g.add(use, kind, name, "", strconv.Itoa(i), crl.NextUpdate, func() *adminv1.CertificateInfo { return crlAsInfo(crl) })
	}
}
