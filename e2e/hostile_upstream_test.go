// A malicious upstream cannot harm the gateway. Huge certificates, huge keys,
// endless chains and slow handshakes end with a reason, within the configured
// time, and with texts of bounded length. Meanwhile the gateway serves others.

package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A falseSigner pretends to sign for a public key whose private key it lacks.
type falseSigner struct{ public crypto.PublicKey }

func (f falseSigner) Public() crypto.PublicKey { return f.public }

func (f falseSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, 2048), nil
}

// hostileRoot issues certificates that pki refuses to issue.
type hostileRoot struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newHostileRoot(t testing.TB) *hostileRoot {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &hostileRoot{t: t, key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hostile root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}}
	if r.cert, err = x509.ParseCertificate(r.issue(r.cert, key.Public())); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *hostileRoot) issue(template *x509.Certificate, public crypto.PublicKey) []byte {
	r.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, r.cert, public, r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	return der
}

// leaf returns a certificate for serverName, modified by change.
func (r *hostileRoot) leaf(change func(*x509.Certificate)) tls.Certificate {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{r.issue(r.template(change), key.Public())}, PrivateKey: key}
}

func (r *hostileRoot) template(change func(*x509.Certificate)) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "hostile"}, DNSNames: []string{serverName}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	change(template)
	return template
}

func TestHostileUpstreams(t *testing.T) {
	t.Parallel()
	a, root := newAuthority(t), newHostileRoot(t)
	manyNames := func(c *x509.Certificate) {
		c.DNSNames = nil
		for i := range 8000 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("n%d.a.example", i))
		}
	}
	serves := func(cert tls.Certificate) string {
		return serveConns(t, &tls.Config{Certificates: []tls.Certificate{cert}}, echo)
	}
	hugeKey := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 16_383, 1), E: 65_537}
	deep := newCA(t, "e2e root")
	chain := deep
	for range 100 {
		chain = intermediate(t, chain)
	}
	strangers := keyPair(t, a.server)
	for range 100 {
		strangers.Certificate = append(strangers.Certificate, newCA(t, "a stranger").Certificate().Raw)
	}
	floods := func(record []byte) string {
		return serveConns(t, nil, func(conn net.Conn) {
			for {
				if _, err := conn.Write(record); err != nil {
					return
				}
			}
		})
	}
	// Each of these cases fails, but the reason may depend on the kernel and the
	// timing.
	cases := []struct {
		name, address string
		bundle        string
		reasons       []adminv1.Reason
	}{
		{"names", serves(root.leaf(manyNames)), "hostile", []adminv1.Reason{adminv1.Reason_REASON_NAME_MISMATCH}},
		{"names-unknown", serves(root.leaf(manyNames)), "ca", []adminv1.Reason{adminv1.Reason_REASON_UNKNOWN_CA}},
		{"text", serves(root.leaf(func(c *x509.Certificate) {
			c.DNSNames = []string{"a.example"}
			c.Subject.CommonName = "\x1b[31m\n\"level\":\"forged\"" + strings.Repeat("x", 60_000)
		})), "ca", []adminv1.Reason{adminv1.Reason_REASON_UNKNOWN_CA}},
		{"rsa-16k", serves(tls.Certificate{
			Certificate: [][]byte{root.issue(root.template(func(*x509.Certificate) {}), hugeKey)}, PrivateKey: falseSigner{hugeKey},
		}), "hostile", []adminv1.Reason{adminv1.Reason_REASON_BAD_CERTIFICATE}},
		{"chain-100", serves(keyPair(t, serverCert(t, chain, serverName))), "deep",
			[]adminv1.Reason{adminv1.Reason_REASON_DEPTH_EXCEEDED, adminv1.Reason_REASON_UNKNOWN_CA, adminv1.Reason_REASON_BAD_CERTIFICATE}},
		{"strangers-100", serves(strangers), "hostile", []adminv1.Reason{adminv1.Reason_REASON_UNKNOWN_CA}},
		{"mebibyte", serves(root.leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Value: make([]byte, 1<<20)}}
		})), "hostile", []adminv1.Reason{adminv1.Reason_REASON_BAD_CERTIFICATE, adminv1.Reason_REASON_OTHER}},
		{"trickle", serveConns(t, nil, func(conn net.Conn) {
			// A ServerHello of 16 KiB, a byte at a time.
			if _, err := conn.Write([]byte{22, 3, 3, 0x40, 0, 2, 0, 0x3f, 0xfc}); err != nil {
				return
			}
			for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
				if _, err := conn.Write([]byte{3}); err != nil {
					tick.Stop()
					return
				}
			}
		}), "ca", []adminv1.Reason{adminv1.Reason_REASON_HANDSHAKE_TIMEOUT}},
		{"flood-handshake", floods(append([]byte{22, 3, 3, 0x40, 0, 11, 0xff, 0xff, 0xff}, make([]byte, 0x4000-4)...)), "ca", nil},
		{"flood-empty", floods([]byte{22, 3, 3, 0, 0}), "ca", nil},
		{"flood-warnings", floods([]byte{21, 3, 3, 0, 2, 1, 90}), "ca", nil},
		{"flood-text", floods([]byte("HTTP/1.1 200 OK \x1b]0;pwned\x07")), "ca", []adminv1.Reason{adminv1.Reason_REASON_NOT_TLS}},
	}

	g := startGateway(t)
	healthy := serveHTTPS(t, a.serverConfig(t), respondsWith("healthy"))
	hostile := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw})
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), trustBundle("deep", deep),
		&adminv1.TrustBundle{Name: "hostile", Source: &adminv1.TrustBundle_Pem{Pem: string(hostile)}},
		upstream("healthy", a.settings(), healthy), listener("healthy", protocolHTTP, "healthy"),
	)
	for _, c := range cases {
		settings := &adminv1.UpstreamTls{TrustBundles: []string{c.bundle}, ServerName: serverName, VerifyDepth: proto.Int32(10)}
		u := upstream(c.name, settings, c.address)
		// Only a timeout ends some of these handshakes. The others get so long that a stall of
		// the machine does not end them with that reason.
		handshake := 5 * time.Second
		if c.reasons != nil && !slices.Contains(c.reasons, adminv1.Reason_REASON_HANDSHAKE_TIMEOUT) {
			handshake = time.Minute
		}
		u.Timeouts = &adminv1.UpstreamTimeouts{Handshake: durationpb.New(handshake)}
		g.apply(u, listener("http-"+c.name, protocolHTTP, c.name), listener("tcp-"+c.name, protocolTCP, c.name))
	}

	addresses := map[string]string{}
	for _, l := range g.getStatus().GetListeners() {
		addresses[l.GetName()] = l.GetBoundAddress()
	}
	var attack sync.WaitGroup
	for _, c := range cases {
		for range 2 {
			attack.Go(func() {
				if code, body, err := tryGet(t, oneRequestClient, "http://"+addresses["http-"+c.name]+"/"); err != nil || code != 502 && code != 504 || len(body) > 100 {
					t.Errorf("%s: HTTP: %d %.200q, %v", c.name, code, body, err)
				}
			})
			attack.Go(func() {
				if answer, _ := exchange(t, addresses["tcp-"+c.name], ""); answer != "" {
					t.Errorf("%s: TCP: %.200q", c.name, answer)
				}
			})
		}
		attack.Go(func() {
			resp, err := g.diagnostics.ProbeUpstream(longContext(t), &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: c.name}})
			if err != nil || len(resp.GetResults()) != 1 {
				t.Errorf("%s: the probe: %v, %v", c.name, resp, err)
				return
			}
			r := resp.GetResults()[0]
			if r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED || c.reasons != nil && !slices.Contains(c.reasons, r.GetReason()) {
				t.Errorf("%s: the probe returned %v, %v: %.300s", c.name, r.GetOutcome(), r.GetReason(), r.GetExplanation())
			}
			if size := proto.Size(r); size > 128<<10 || len(r.GetExplanation()) > 4096 || len(r.GetSuggestion().GetText()) > 4096 || len(r.GetChain()) > 20 {
				t.Errorf("%s: the probe's answer has %d bytes, %d of explanation, %d of suggestion, %d certificates",
					c.name, size, len(r.GetExplanation()), len(r.GetSuggestion().GetText()), len(r.GetChain()))
			}
			for _, text := range []string{r.GetExplanation(), r.GetSuggestion().GetText(), fmt.Sprint(r.GetChain())} {
				if strings.ContainsAny(text, "\x1b\x07\n") {
					t.Errorf("%s: text is shown unescaped: %.300q", c.name, text)
				}
			}
		})
	}
	attacked := make(chan struct{})
	go func() {
		attack.Wait()
		close(attacked)
	}()
	served := 0
	for done := false; !done || served == 0; {
		if code, body := get(t, "http://"+addresses["healthy"]+"/"); code != 200 || body != "healthy" {
			t.Errorf("another upstream's clients get %d %q", code, body)
		}
		g.getStatus()
		served++
		select {
		case <-attacked:
			done = true
		default:
		}
	}
	for _, c := range cases {
		e := g.upstream(c.name).GetEndpoints()[0]
		f := e.GetLastFailure()
		if f.GetReason() == adminv1.Reason_REASON_UNSPECIFIED || c.reasons != nil && !slices.Contains(c.reasons, f.GetReason()) {
			t.Errorf("%s: the last failure is %v: %.300s", c.name, f.GetReason(), f.GetMessage())
		}
		if len(f.GetMessage()) > 4096 || proto.Size(e) > 64<<10 {
			t.Errorf("%s: the status has %d bytes, %d of message", c.name, proto.Size(e), len(f.GetMessage()))
		}
	}
	for line := range strings.Lines(g.out.String()) {
		if len(line) > 16<<10 || !strings.HasPrefix(line, "{") || strings.Contains(line, "\x1b") {
			t.Errorf("a line of the log has %d bytes: %.500q", len(line), line)
		}
	}
	// The race detector multiplies memory by up to ten.
	if peak := peakMemory(t, g.cmd.Process.Pid); peak > 1<<30 {
		t.Errorf("the gateway needed %d MiB", peak>>20)
	}
}
