package certs

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// requirements returns the Requirements of an upstream that trusts the root.
func (v *shortChain) requirements(t testing.TB, now *time.Time, change func(*ClientOptions), crls ...CRLSource) *Requirements {
	t.Helper()
	b, err := NewTrustBundle(TrustSource{Field: "pem", Certificates: v.root.RootPEM(), CRLs: crls})
	if err != nil {
		t.Fatal(err)
	}
	o := ClientOptions{Trust: []*TrustBundle{b}, Time: func() time.Time { return *now }}
	if change != nil {
		change(&o)
	}
	r, err := NewRequirements(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// handshake returns the Peer of a connection whose handshake r accepts.
func (v *shortChain) handshake(t testing.TB, r *Requirements, chain []*x509.Certificate, name string) *Peer {
	t.Helper()
	if failures := r.verify(chain, r.nameOr(name)); len(failures) > 0 {
		t.Fatal(failures[0])
	}
	return r.peer(chain, name, nil, r.now())
}

// A live peer gets the verdict that a new handshake would get.
func TestReverifyingAgreesWithTheNextHandshake(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	now := start
	v := newShortChain(t, start)
	other := newShortChain(t, start)
	first := v.requirements(t, &now, nil)
	peer := v.handshake(t, first, v.chain, "a.test")
	if peer.chain == nil {
		t.Fatal("the peer has no verified chain")
	}
	day := 24 * time.Hour
	zero := uint32(0)
	list := func(ca *pki.CA, revoked ...*x509.Certificate) CRLSource {
		return v.crl(t, ca, start.Add(-day), start.Add(day), revoked...)
	}
	for _, c := range []struct {
		what   string
		after  time.Duration
		change func(*ClientOptions)
		crls   []CRLSource
		want   Reason
	}{
		{"no change", 0, nil, nil, ""},
		{"a day later", day, nil, nil, ""},
		{"the leaf expires", 2*day + time.Second, nil, nil, ReasonExpired},
		{"an empty revocation list of each issuer", 0, nil, []CRLSource{list(v.root), list(v.mid)}, ""},
		{"the leaf is revoked", 0, nil, []CRLSource{list(v.root), list(v.mid, v.chain[0])}, ReasonRevoked},
		{"the intermediate is revoked", 0, nil, []CRLSource{list(v.root, v.mid.Certificate()), list(v.mid)}, ReasonRevoked},
		{"an unrelated certificate is revoked", 0, nil, []CRLSource{list(v.root, other.chain[0]), list(v.mid, other.chain[0])}, ""},
		{"a revocation list is missing", 0, nil, []CRLSource{list(v.root)}, ReasonCRLExpired},
		{"the revocation lists expire", day + time.Second, nil, []CRLSource{list(v.root), list(v.mid)}, ReasonCRLExpired},
		{"another anchor", 0, func(o *ClientOptions) { o.Trust = other.requirements(t, &now, nil).trust }, nil, ReasonUnknownCA},
		{"one more anchor", 0, func(o *ClientOptions) { o.Trust = append(o.Trust, other.requirements(t, &now, nil).trust...) }, nil, ""},
		{"the intermediate as an anchor", 0, func(o *ClientOptions) { o.Trust = []*TrustBundle{newTrustBundle(v.chain[1:])} }, nil, ""},
		{"a smaller depth", 0, func(o *ClientOptions) { o.VerifyDepth = &zero }, nil, ReasonDepthExceeded},
		{"a pin of another key", 0, func(o *ClientOptions) { o.Pins = [][32]byte{{}} }, nil, ReasonPinMismatch},
		{"a pin of the server's key", 0, func(o *ClientOptions) { o.Pins = [][32]byte{pinOf(v.chain[1])} }, nil, ""},
		{"another verified name", 0, func(o *ClientOptions) { o.VerifyName = "b.test" }, nil, ReasonNameMismatch},
		{"another server name", 0, func(o *ClientOptions) { o.ServerName = "b.test" }, nil, ReasonNameMismatch},
		{"other alternative names", 0, func(o *ClientOptions) { o.SubjectAltNames = []SAN{{SANDNS, "b.test"}} }, nil, ReasonNameMismatch},
		{"report only", 0, func(o *ClientOptions) { o.Verification, o.VerifyName = VerifyReportOnly, "b.test" }, nil, ""},
		{"no verification", 0, func(o *ClientOptions) { o.Verification = VerifyInsecureSkip }, nil, ""},
	} {
		now = start.Add(c.after)
		r := v.requirements(t, &now, c.change, c.crls...)
		until, failure := r.Reverify(peer)
		var got Reason
		if failure != nil {
			got = failure.Reason
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		if r.mode == VerifyFull {
			fresh := v.requirements(t, &now, c.change, c.crls...).verify(v.chain, r.nameOr("a.test"))
			if (len(fresh) > 0) != (failure != nil) || failure != nil && fresh[0].Reason != got {
				t.Errorf("%s: a new handshake gets %v", c.what, reasons(fresh))
			}
		}
		if failure == nil && until.Before(now) {
			t.Errorf("%s: it passes until %v, before now", c.what, until)
		}
		if failure != nil || r.mode != VerifyFull {
			continue
		}
		now = until.Add(time.Second)
		if _, failure := r.Reverify(peer); failure == nil {
			t.Errorf("%s: it still passes after %v", c.what, until)
		}
	}
}

// In every verification mode, a connection ends with the certificate that we
// presented.
func TestAConnectionEndsWithOurOwnCertificate(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	now := start
	v := newShortChain(t, start)
	issued, err := v.mid.Issue(pki.LeafOptions{DNSNames: []string{"us.test"}, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	own, err := NewCertificate(CertificateSource{Chain: issued.ChainPEM, Key: issued.KeyPEM})
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []Verification{VerifyFull, VerifyReportOnly, VerifyInsecureSkip} {
		now = start
		r := v.requirements(t, &now, func(o *ClientOptions) { o.Verification = mode })
		r.verify(v.chain, "a.test")
		peer := r.peer(v.chain, "a.test", own, now)
		if until, failure := r.Reverify(peer); failure != nil || !until.Equal(start.Add(time.Hour)) {
			t.Errorf("%v: until %v, %v", mode, until, failure)
		}
		now = start.Add(time.Hour + time.Second)
		if _, failure := r.Reverify(peer); failure == nil || failure.Reason != ReasonOwnCertificateExpired {
			t.Errorf("%v: %v", mode, failure)
		}
		// The peer of this connection accepted an expired certificate.
		if _, failure := r.Reverify(r.peer(v.chain, "a.test", own, now)); failure != nil {
			t.Errorf("%v: %v", mode, failure)
		}
	}
}

// BenchmarkReverify measures the cost of a new revocation list for each live
// connection. Each has its own certificate.
func BenchmarkReverify(b *testing.B) {
	now := time.Now()
	v := newShortChain(b, now)
	const connections = 10000
	before := v.requirements(b, &now, nil)
	peers := make([]*Peer, connections)
	for i := range peers {
		chain := v.issue(b, pki.LeafOptions{DNSNames: []string{"a.test", fmt.Sprintf("%d.test", i)}})
		peers[i] = v.handshake(b, before, chain, "a.test")
	}
	revoked := []*x509.Certificate{peers[7].Certificates[0]}
	lists := []CRLSource{v.crl(b, v.root, now, now.Add(time.Hour)), v.crl(b, v.mid, now, now.Add(time.Hour), revoked...)}
	for b.Loop() {
		r, ended := v.requirements(b, &now, nil, lists...), 0
		for _, p := range peers {
			if _, failure := r.Reverify(p); failure != nil {
				ended++
			}
		}
		if ended != 1 {
			b.Fatalf("%d of %d end", ended, connections)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/connections, "ns/connection")
}
