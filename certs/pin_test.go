package certs_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestParsePins(t *testing.T) {
	leaf := certstest.NewCA(t).Server(t, "a.test").Leaf
	pin := pinOf(leaf)
	sums, err := certs.ParsePins([]string{pin, "sha256/" + pin, "sha256//" + pin})
	if err != nil || len(sums) != 3 || sums[0] != sums[1] || sums[1] != sums[2] || sums[0] != sha256.Sum256(leaf.RawSubjectPublicKeyInfo) {
		t.Errorf("%x, %v", sums, err)
	}
	slash := base64.StdEncoding.EncodeToString(append([]byte{0xff}, make([]byte, 31)...)) // begins with a slash
	if sums, err := certs.ParsePins([]string{slash, "sha256/" + slash, "sha256//" + slash}); err != nil || len(sums) != 3 || sums[0] != sums[1] || sums[1] != sums[2] {
		t.Errorf("%s: %x, %v", slash, sums, err)
	}
	if sums, err := certs.ParsePins(nil); sums != nil || err != nil {
		t.Errorf("nothing: %v, %v", sums, err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	for _, c := range []struct{ pin, say string }{
		{"", "is empty"},
		{"sha256/", "is empty"},
		{"not base64!", "not base64"},
		{base64.StdEncoding.EncodeToString(sum[:20]), "20 bytes"},
		{hex.EncodeToString(sum[:]), "in base64 are " + pin},
		{strings.ToUpper(colons(sum[:])), "in base64 are " + pin},
		{base64.RawStdEncoding.EncodeToString(sum[:]), "not base64"},
		{strings.Repeat("\x1b", 1000), "not base64"},
	} {
		_, err := certs.ParsePins([]string{pin, c.pin})
		f := wantFault(t, err, "[1]")
		if !strings.Contains(f.Problem, c.say) {
			t.Errorf("%q: problem %q does not say %q", c.pin, f.Problem, c.say)
		}
		checkText(t, f.Problem)
	}
	_, err = certs.ParsePins(slices.Repeat([]string{pin}, 101))
	wantFault(t, err, "")
}

func colons(sum []byte) string {
	var parts []string
	for _, b := range sum {
		parts = append(parts, hex.EncodeToString([]byte{b}))
	}
	return strings.Join(parts, ":")
}

// A pin is required in addition to a valid chain: any key of the verified
// chain matches, but not a certificate outside it.
func TestPins(t *testing.T) {
	root := certstest.NewCA(t)
	below := root.Intermediate(t)
	server := below.Server(t, "upstream.test")
	stranger := certstest.NewCA(t)
	trust, others := []*certs.TrustBundle{root.Trust(t)}, []*certs.TrustBundle{stranger.Trust(t)}
	for _, c := range []struct {
		name   string
		trust  []*certs.TrustBundle
		pinned []*x509.Certificate
		want   certs.Reason
	}{
		{"no pin", trust, nil, ""},
		{"the leaf", trust, []*x509.Certificate{server.Leaf}, ""},
		{"the intermediate", trust, []*x509.Certificate{below.Certificate()}, ""},
		{"the root", trust, []*x509.Certificate{root.Certificate()}, ""},
		{"one of two", trust, []*x509.Certificate{stranger.Certificate(), server.Leaf}, ""},
		{"another certificate", trust, []*x509.Certificate{stranger.Certificate()}, certs.ReasonPinMismatch},
		{"the leaf, without a trusted CA", others, []*x509.Certificate{server.Leaf}, certs.ReasonUnknownCA},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				var pins []string
				for _, p := range c.pinned {
					pins = append(pins, pinOf(p))
				}
				sums, err := certs.ParsePins(pins)
				if err != nil {
					t.Fatal(err)
				}
				config := tlsConfig(t, server)
				// The server also sends a certificate that is in no chain.
				config.Certificates[0].Certificate = append(config.Certificates[0].Certificate, stranger.Certificate().Raw)
				s := serveConfig(t, config)
				client := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: c.trust, Pins: sums, MaxVersion: version})
				for i := range 2 {
					state, err := connect(t, client, s.addr)
					if c.want == "" && (err != nil || state.DidResume != (i > 0)) {
						t.Fatalf("connection %d: resumed %v, error %v", i, state.DidResume, err)
					}
					if c.want == "" {
						continue
					}
					wantReason(t, err, c.want)
					if c.want == certs.ReasonPinMismatch && !strings.Contains(err.Error(), pinOf(server.Leaf)) {
						t.Errorf("error %q does not say what would be right", err)
					}
				}
			})
		})
	}
}
