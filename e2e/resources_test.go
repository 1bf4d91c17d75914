package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	protocolTCP  = adminv1.Protocol_PROTOCOL_TCP
	protocolHTTP = adminv1.Protocol_PROTOCOL_HTTP
)

// listener returns a plaintext listener on a port that the kernel chooses.
func listener(name string, protocol adminv1.Protocol, upstream string) *adminv1.Listener {
	return &adminv1.Listener{Name: name, Address: "127.0.0.1:0", Protocol: protocol, Upstream: upstream}
}

// upstream returns an upstream with TLS; nil settings mean all defaults.
func upstream(name string, settings *adminv1.UpstreamTls, addresses ...string) *adminv1.Upstream {
	u := &adminv1.Upstream{Name: name}
	if settings != nil {
		u.Transport = &adminv1.Upstream_Tls{Tls: settings}
	}
	for _, a := range addresses {
		u.Endpoints = append(u.Endpoints, &adminv1.Endpoint{Address: a})
	}
	return u
}

// plainUpstream returns an upstream without TLS.
func plainUpstream(name string, addresses ...string) *adminv1.Upstream {
	u := upstream(name, nil, addresses...)
	u.Transport = &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}
	return u
}

// forward returns a route for a path prefix.
func forward(name, listener, prefix, upstream string) *adminv1.Route {
	return &adminv1.Route{
		Name:      name,
		Listeners: []string{listener},
		Match:     &adminv1.RouteMatch{Path: &adminv1.PathMatch{Kind: &adminv1.PathMatch_Prefix{Prefix: prefix}}},
		Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{
			Upstreams: []*adminv1.WeightedUpstream{{Name: upstream}},
		}},
	}
}

func trustBundle(name string, ca *pki.CA) *adminv1.TrustBundle {
	return &adminv1.TrustBundle{Name: name, Source: &adminv1.TrustBundle_Pem{Pem: string(ca.RootPEM())}}
}

func certificate(name string, issued *pki.Issued) *adminv1.Certificate {
	return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
		CertificateChain: string(issued.ChainPEM),
		PrivateKey:       string(issued.KeyPEM),
	}}}
}

func ref(kind adminv1.Kind, name string) *adminv1.ResourceRef {
	return &adminv1.ResourceRef{Kind: kind, Name: name}
}

func newCA(t testing.TB, name string) *pki.CA {
	t.Helper()
	ca, err := pki.NewRoot(pki.CAOptions{CommonName: name})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t testing.TB, ca *pki.CA, options pki.LeafOptions) *pki.Issued {
	t.Helper()
	issued, err := ca.Issue(options)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// serverCert issues a certificate for name and 127.0.0.1.
func serverCert(t testing.TB, ca *pki.CA, name string) *pki.Issued {
	t.Helper()
	return issue(t, ca, pki.LeafOptions{CommonName: name, DNSNames: []string{name}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Usage: pki.Server})
}

func clientCert(t testing.TB, ca *pki.CA, name string) *pki.Issued {
	t.Helper()
	return issue(t, ca, pki.LeafOptions{CommonName: name, Usage: pki.Client})
}

// expiredCert issues a certificate that expired an hour ago.
func expiredCert(t testing.TB, ca *pki.CA, name string) *pki.Issued {
	t.Helper()
	return issue(t, ca, pki.LeafOptions{
		CommonName: name, DNSNames: []string{name}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Usage: pki.Server,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
}

func keyPair(t testing.TB, issued *pki.Issued) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(issued.ChainPEM, issued.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func pool(ca *pki.CA) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.RootPEM())
	return roots
}
