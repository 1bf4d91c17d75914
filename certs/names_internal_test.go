package certs

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
)

// named returns a certificate with the given names.
func named(names ...string) *Certificate {
	leaf := new(x509.Certificate)
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, n)
		}
	}
	return &Certificate{chain: []*x509.Certificate{leaf}}
}

// The index finds the same certificates as a linear search, in the same order.
func TestTheNameIndexFindsMatchingCertificates(t *testing.T) {
	labels := []string{"a", "b", "*", "A", "x-y"}
	random := rand.New(rand.NewPCG(3, 4))
	name := func(labels []string) string {
		s := labels[random.IntN(len(labels))]
		for range random.IntN(3) {
			s += "." + labels[random.IntN(len(labels))]
		}
		return s
	}
	for range 300 {
		var all []*Certificate
		for range 20 {
			names := []string{name(labels), name(labels)}
			switch random.IntN(8) {
			case 0:
				names = []string{"127.0.0.1"}
			case 1:
				names = nil
			case 2:
				names[0] += "."
			}
			all = append(all, named(names...))
		}
		x := newNameIndex(all)
		for range 20 {
			ask := serverName(name([]string{"a", "b", "x-y", "c"}))
			if random.IntN(10) == 0 {
				ask = "127.0.0.1"
			}
			var want, got []*Certificate
			for _, c := range all {
				if c.Matches(ask) {
					want = append(want, c)
				}
			}
			x.each(ask, func(c *Certificate) bool { got = append(got, c); return true })
			if !slices.Equal(got, want) {
				t.Fatalf("%q: %d certificates, want %d", ask, len(got), len(want))
			}
		}
		want := slices.DeleteFunc(slices.Clone(all), func(c *Certificate) bool { return !sameNames(c.Leaf(), all[0].Leaf()) })
		if got := x.withNamesOf(all[0]); !slices.Equal(got, want) {
			t.Fatalf("%v: %d with the same names, want %d", all[0].Leaf().DNSNames, len(got), len(want))
		}
	}
}

// The cost of choosing must not depend on the number of certificates.
func BenchmarkChooseByName(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("certificates=%d", n), func(b *testing.B) {
			var all []*Certificate
			for i := range n {
				all = append(all, named(fmt.Sprintf("host-%d.example", i)))
			}
			x := newNameIndex(all)
			b.ReportAllocs()
			for b.Loop() {
				found := false
				x.each("host-7.example", func(*Certificate) bool { found = true; return false })
				if !found {
					b.Fatal("not found")
				}
			}
		})
	}
}
