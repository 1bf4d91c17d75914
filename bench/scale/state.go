package scale

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A state is the resources of a gateway: n of each kind, but fewer listeners if
// there are few descriptors. Every upstream has its own certificate and trust
// bundle. All routes belong to the listener "edge", which presents all
// certificates; every other listener has its own upstream.
type state struct {
	n, listeners int

	caKey   *ecdsa.PrivateKey // shared by all CAs, to save time
	caCerts []*x509.Certificate
}

// few is the number of certificates of the listener "few". Handshakes at "edge"
// are compared with handshakes at "few".
const few = 10

func newState(n, listeners int) (*state, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	s := &state{n: n, listeners: listeners, caKey: key}
	for i := range n {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: fmt.Sprintf("scale CA %05d", i)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		s.caCerts = append(s.caCerts, cert)
	}
	return s, nil
}

func name(kind string, i int) string { return fmt.Sprintf("%s%05d", kind, i) }

// hostOf returns the name in the ith certificate, which is also the host of the ith
// route.
func hostOf(i int) string { return fmt.Sprintf("h%05d.scale.test", i) }

func (s *state) bundle(i int, secondSet bool) *adminv1.TrustBundle {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.caCerts[i].Raw})
	if secondSet { // another set of CAs
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.caCerts[(i+1)%s.n].Raw})...)
	}
	return &adminv1.TrustBundle{Name: name("b", i), Source: &adminv1.TrustBundle_Pem{Pem: string(text)}}
}

// certificate returns the ith certificate with a new key.
func (s *state) certificate(i int) (*adminv1.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hostOf(i)}, DNSNames: []string{hostOf(i)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.caCerts[i], key.Public(), s.caKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &adminv1.Certificate{Name: name("c", i), Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
		CertificateChain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		PrivateKey:       string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
	}}}, nil
}

func (s *state) upstream(i, weight int) *adminv1.Upstream {
	w := int32(weight)
	return &adminv1.Upstream{
		Name: name("u", i), Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:9", Weight: &w}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{
			Certificate: name("c", i), TrustBundles: []string{name("b", i)}, ServerName: hostOf(i),
		}},
	}
}

// route returns the ith route. Half of the routes have a path besides their host.
func (s *state) route(i int, header string) *adminv1.Route {
	r := &adminv1.Route{
		Name: name("r", i), Listeners: []string{"edge"}, Match: &adminv1.RouteMatch{Hosts: []string{hostOf(i)}},
		Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{Upstreams: []*adminv1.WeightedUpstream{{Name: name("u", i)}}}},
	}
	if i%2 == 1 {
		r.Match.Path = &adminv1.PathMatch{Kind: &adminv1.PathMatch_Prefix{Prefix: "/api/"}}
	}
	if header != "" {
		r.Match.Methods = []string{"GET"}
		r.RequestHeaders = &adminv1.HeaderRules{Set: []*adminv1.HeaderValue{{Name: "X-Revision", Value: header}}}
	}
	return r
}

// listener returns the ith listener. Each has its own address.
func (s *state) listener(i, port int, idle time.Duration) *adminv1.Listener {
	return &adminv1.Listener{
		Name: name("l", i), Address: fmt.Sprintf("127.1.%d.%d:%d", i/250, i%250+1, port),
		Protocol: adminv1.Protocol_PROTOCOL_TCP, Upstream: name("u", i), Timeouts: &adminv1.ListenerTimeouts{Idle: durationpb.New(idle)},
	}
}

// front returns a listener that presents the first n certificates.
func (s *state) front(named string, port, n int, idle time.Duration) *adminv1.Listener {
	l := &adminv1.Listener{
		Name: named, Address: fmt.Sprintf("127.0.0.1:%d", port), Protocol: adminv1.Protocol_PROTOCOL_HTTP, Upstream: name("u", 0),
		Tls: &adminv1.ServerTls{}, Timeouts: &adminv1.ListenerTimeouts{Idle: durationpb.New(idle)},
	}
	for i := range n {
		l.Tls.Certificates = append(l.Tls.Certificates, name("c", i))
	}
	return l
}
