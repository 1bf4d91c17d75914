package certs

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// A shortChain is a leaf below an intermediate below a root. They expire at
// different times.
type shortChain struct {
	root, mid *pki.CA
	chain     []*x509.Certificate
}

func newShortChain(t testing.TB, start time.Time) *shortChain {
	t.Helper()
	day := 24 * time.Hour
	root, err := pki.NewRoot(pki.CAOptions{NotBefore: start.Add(-9 * day), NotAfter: start.Add(9 * day)})
	if err != nil {
		t.Fatal(err)
	}
	mid, err := root.NewIntermediate(pki.CAOptions{NotBefore: start.Add(-2 * day), NotAfter: start.Add(3 * day)})
	if err != nil {
		t.Fatal(err)
	}
	v := &shortChain{root: root, mid: mid}
	v.chain = v.issue(t, pki.LeafOptions{DNSNames: []string{"a.test"}, NotBefore: start.Add(-3 * day), NotAfter: start.Add(2 * day)})
	return v
}

// issue returns a new leaf and the rest of its chain.
func (v *shortChain) issue(t testing.TB, o pki.LeafOptions) []*x509.Certificate {
	t.Helper()
	issued, err := v.mid.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{issued.Leaf, v.mid.Certificate()}
}

func (v *shortChain) crl(t testing.TB, ca *pki.CA, from, to time.Time, revoked ...*x509.Certificate) CRLSource {
	t.Helper()
	o := pki.CRLOptions{ThisUpdate: from, NextUpdate: to}
	for _, c := range revoked {
		o.Revoked = append(o.Revoked, new(big.Int).Set(c.SerialNumber))
	}
	text, err := ca.CRL(o)
	if err != nil {
		t.Fatal(err)
	}
	return CRLSource{Field: "crl", Data: text}
}

// verifier returns a verifier that trusts the root.
func (v *shortChain) verifier(t testing.TB, now *time.Time, crls ...CRLSource) *verifier {
	t.Helper()
	b, err := NewTrustBundle(TrustSource{Field: "pem", Certificates: v.root.RootPEM(), CRLs: crls})
	if err != nil {
		t.Fatal(err)
	}
	trust := []*TrustBundle{b}
	return &verifier{trust: trust, roots: pool(trust), usage: x509.ExtKeyUsageServerAuth, now: func() time.Time { return *now }}
}

// forget empties a verifier's cache.
func (v *verifier) forget() { v.verified.chains = nil }

func reasons(failures []*VerifyError) string {
	all := ""
	for _, f := range failures {
		all += string(f.Reason) + " "
	}
	return all
}

// Verdicts are the same with and without the cache: at every limit of validity,
// and shortly before and after it, in any order.
func TestACachedVerdictLastsOnlyWhileTheChainPasses(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	at := func(hours int) time.Time { return start.Add(time.Duration(hours) * time.Hour) }
	v := newShortChain(t, start)
	leaf, mid := v.chain[0], v.mid.Certificate()
	root := v.crl(t, v.root, at(-500), at(500))
	for _, c := range []struct {
		name string
		crls []CRLSource
	}{
		{"no lists", nil},
		{"current lists", []CRLSource{root, v.crl(t, v.mid, at(-5), at(7))}},
		{"a list whose successor starts at its end", []CRLSource{root, v.crl(t, v.mid, at(-5), at(7)), v.crl(t, v.mid, at(7), at(14))}},
		{"a list whose successor starts later", []CRLSource{root, v.crl(t, v.mid, at(-5), at(7)), v.crl(t, v.mid, at(8), at(14))}},
		{"a future list that revokes the leaf", []CRLSource{root, v.crl(t, v.mid, at(-5), at(30)), v.crl(t, v.mid, at(7), at(14), leaf)}},
		{"a past list that revokes the leaf", []CRLSource{root, v.crl(t, v.mid, at(-50), at(-5), leaf), v.crl(t, v.mid, at(-20), at(14))}},
		{"a future list of the root that revokes the intermediate", []CRLSource{root, v.crl(t, v.root, at(6), at(9), mid), v.crl(t, v.mid, at(-20), at(14))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := start
			remembers, fresh := v.verifier(t, &now, c.crls...), v.verifier(t, &now, c.crls...)
			var moments []time.Time
			edge := func(from, to time.Time) { moments = append(moments, from, to) }
			for _, cert := range append(v.chain, v.root.Certificate()) {
				edge(cert.NotBefore, cert.NotAfter)
			}
			for _, l := range fresh.trust[0].lists() {
				edge(l.list.ThisUpdate, l.list.NextUpdate)
			}
			for _, m := range slices.Clone(moments) {
				moments = append(moments, m.Add(-1), m.Add(1), m.Add(-time.Hour), m.Add(time.Hour))
			}
			moments = append(moments, start)
			passed, remembered := 0, 0
			for range 1000 {
				now = moments[rand.IntN(len(moments))]
				fresh.forget()
				want := reasons(fresh.verify(v.chain, "a.test"))
				_, known := remembers.verified.get(chainKey(v.chain), now)
				if got := reasons(remembers.verify(v.chain, "a.test")); got != want {
					t.Fatalf("at %s it is %q, want %q", now, got, want)
				}
				if want == "" {
					passed++
				}
				if known {
					remembered++
				}
			}
			if passed == 0 || remembered == 0 {
				t.Errorf("%d passed, %d of them from memory", passed, remembered)
			}
		})
	}
}

func (b *TrustBundle) lists() []*crl {
	if b.crls == nil {
		return nil
	}
	return b.crls.lists
}

// The cache key depends on all presented certificates.
func TestOtherChainsWithACachedLeafAreVerified(t *testing.T) {
	now := time.Now()
	v := newShortChain(t, now)
	stranger := newShortChain(t, now)
	verifier := v.verifier(t, &now)
	if got := reasons(verifier.verify(v.chain, "a.test")); got != "" {
		t.Fatal(got)
	}
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		want  string
	}{
		{"the leaf alone", v.chain[:1], "UNKNOWN_CA "},
		{"the leaf below another CA", []*x509.Certificate{v.chain[0], stranger.mid.Certificate()}, "UNKNOWN_CA "},
		{"a leaf of another CA", []*x509.Certificate{stranger.chain[0], v.chain[1]}, "UNKNOWN_CA "},
		{"in another order", []*x509.Certificate{v.chain[1], v.chain[0]}, "NAME_MISMATCH "},
		{"the same chain again", v.chain, ""},
	} {
		for range 2 {
			if got := reasons(verifier.verify(c.chain, "a.test")); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
	}
}

// The name is verified each time, because it may change.
func TestNamesOfCachedChainsAreVerified(t *testing.T) {
	now := time.Now()
	v := newShortChain(t, now)
	verifier := v.verifier(t, &now)
	for name, want := range map[string]string{"a.test": "", "b.test": "NAME_MISMATCH ", "": "LOCAL_CONFIG "} {
		for range 2 {
			if got := reasons(verifier.verify(v.chain, name)); got != want {
				t.Errorf("%q: %q, want %q", name, got, want)
			}
		}
	}
}

func TestFailuresAreNotCached(t *testing.T) {
	now := time.Now()
	v := newShortChain(t, now)
	verifier := v.verifier(t, &now)
	verifier.pins = [][32]byte{{}}
	for range 2 {
		if got := reasons(verifier.verify(v.chain, "a.test")); got != string(ReasonPinMismatch)+" " {
			t.Errorf("the reason is %q", got)
		}
	}
	if n := len(verifier.verified.chains); n != 0 {
		t.Errorf("%d chains are remembered", n)
	}
}

// The cache is bounded although a peer may present arbitrary certificates, and
// ten thousand leaves may be valid.
func TestCachedChainsAreBounded(t *testing.T) {
	now := time.Now()
	var v verified
	p := passedChain{period: period{now.Add(-time.Hour), now.Add(time.Hour)}}
	key := func(i int) (k [32]byte) { copy(k[:], fmt.Sprint(i)); return k }
	for i := range 3 * maxVerified {
		v.add(key(i), p)
		if _, ok := v.get(key(i), now); !ok {
			t.Fatal("the latest is not remembered")
		}
	}
	if n := len(v.chains); n != maxVerified {
		t.Errorf("%d are remembered", n)
	}
}

// BenchmarkVerify measures verification without and with the cache.
func BenchmarkVerify(b *testing.B) {
	now := time.Now()
	v := newShortChain(b, now)
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprintf("known=%v", known), func(b *testing.B) {
			verifier := v.verifier(b, &now, v.crl(b, v.root, now, now.Add(time.Hour)), v.crl(b, v.mid, now, now.Add(time.Hour)))
			b.ReportAllocs()
			for b.Loop() {
				if !known {
					verifier.forget()
				}
				if failures := verifier.verify(v.chain, "a.test"); failures != nil {
					b.Fatal(reasons(failures))
				}
			}
		})
	}
}
