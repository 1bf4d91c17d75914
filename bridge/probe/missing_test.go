package probe_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// selfSignedBy makes a server certificate with a key that only OpenSSL makes.
func selfSignedBy(t *testing.T, generate string) *pki.Issued {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	run := func(in, args string) []byte {
		cmd := exec.Command(path, strings.Fields(args)...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %s: %v", args, err)
		}
		return out
	}
	key := run("", "genpkey "+generate)
	chain := run(string(key), "req -x509 -new -key /dev/stdin -subj /CN=upstream.test -days 10 -addext subjectAltName=DNS:upstream.test")
	return &pki.Issued{ChainPEM: chain, KeyPEM: key}
}

// Alert 40 means that a parameter was missing. The probe finds the parameter,
// and gives no advice that a further handshake has disproved.
func TestMissingParameterIsNamed(t *testing.T) {
	ca := certstest.NewCA(t)
	brainpool := selfSignedBy(t, "-algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1")
	ed448 := selfSignedBy(t, "-algorithm ED448")
	pss := selfSignedBy(t, "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048")
	ecdsa, rsa := ca.Server(t, "upstream.test"), ca.Leaf(t, pki.LeafOptions{Usage: pki.Server, DNSNames: []string{"upstream.test"}, Key: pki.RSA2048})
	only13 := func(o *certs.ClientOptions) { o.MinVersion = 0x0304 }
	both, old, current := "", "-tls1_2", "-tls1_3"
	for _, c := range []struct {
		name     string
		issued   *pki.Issued
		versions []string
		args     string
		change   func(*certs.ClientOptions)
		reason   certs.Reason
		facts    []string
		advice   string
	}{
		{"a brainpool key", brainpool, []string{both, old}, "", nil, certs.ReasonNoCommonSignature, []string{"key of the type ECDSA brainpoolP256r1"}, "Ed25519 key"},
		{"an Ed448 key", ed448, []string{both, old, current}, "", nil, certs.ReasonNoCommonSignature, []string{"Ed448"}, "Ed25519 key"},
		{"an Ed448 key, TLS 1.3 only", ed448, []string{both, current}, "", only13, certs.ReasonNoCommonSignature, []string{"signatures with an Ed448 key"}, "Ed25519 key"},
		{"an RSA-PSS key", pss, []string{both, old, current}, "", nil, certs.ReasonNoCommonSignature, []string{"RSA-PSS"}, "rsaEncryption"},
		{"finite-field groups only", ecdsa, []string{current}, "-groups ffdhe2048:ffdhe3072", nil, certs.ReasonNoCommonGroup, []string{"it chose ffdhe2048"}, "X25519, P-256"},
		{"X448 only", ecdsa, []string{current, old}, "-groups X448", nil, certs.ReasonNoCommonGroup, []string{"it chose X448"}, "X25519, P-256"},
		{"a DHE suite only", rsa, []string{old}, "-cipher DHE-RSA-AES256-GCM-SHA384", nil, certs.ReasonNoCommonCipher, []string{"it chose TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"}, "enable TLS 1.3, or an ECDHE suite"},
		{"a CCM suite of TLS 1.3 only", ecdsa, []string{current}, "-ciphersuites TLS_AES_128_CCM_SHA256", nil, certs.ReasonNoCommonCipher, []string{"it chose TLS_AES_128_CCM_SHA256"}, "no setting here adds a suite to TLS 1.3"},
	} {
		for _, version := range c.versions {
			t.Run(c.name+version, func(t *testing.T) {
				_, o := mutual(t, ca)
				if c.change != nil {
					c.change(&o)
				}
				r := run(t, sServer(t, c.issued, append(strings.Fields(c.args), strings.Fields(version)...)...), o)
				want(t, r, c.reason, c.facts, []string{c.advice})
				if strings.Contains(r.Suggestion.Text, "tls.") || r.Suggestion.Field != "" {
					t.Errorf("no setting would help, and the suggestion is %+v", r.Suggestion)
				}
			})
		}
	}
}

// If a server refuses every ClientHello, the probe claims no cause.
func TestProbeFindsNoMissingParameter(t *testing.T) {
	_, o := mutual(t, certstest.NewCA(t))
	r := run(t, serve(t, listen(t), func(c net.Conn) {
		c.Read(make([]byte, 4096))
		c.Write([]byte{21, 3, 3, 0, 2, 2, 40})
	}), o)
	want(t, r, certs.ReasonNoCommonCipher, []string{"also refused a ClientHello with every cipher suite"}, []string{"upstream's log"})
}
