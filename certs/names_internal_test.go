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
		certificate := func() *Certificate {
			names := []string{name(labels), name(labels)}
			switch random.IntN(8) {
			case 0:
				names = []string{addresses[random.IntN(len(addresses))]}
			case 1:
				names = nil
			case 2:
				names[0] += "."
			}
			return named(names...)
		}
		var x nameIndex
		for range 4 {
			all = edited(random, all, certificate)
			x = newNameIndex(all, &x)
			for range 20 {
				ask := serverName(name([]string{"a", "b", "x-y", "c"}))
				if random.IntN(10) == 0 {
					ask = addresses[random.IntN(len(addresses))]
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
			if got := x.sameNamed; !slices.Equal(got, want) {
				t.Fatalf("%v: %d with the same names, want %d", all[0].Leaf().DNSNames, len(got), len(want))
			}
		}
	}
}

var addresses = []string{"127.0.0.1", "10.0.0.1", "::1", "[::1]", "::ffff:127.0.0.1"}

// edited returns 20 new certificates, or the given ones with some replaced, removed or
// added.
func edited(random *rand.Rand, all []*Certificate, certificate func() *Certificate) []*Certificate {
	all = slices.Clone(all)
	for len(all) < 20 {
		all = append(all, certificate())
	}
	for range random.IntN(4) {
		i := random.IntN(len(all))
		switch random.IntN(4) {
		case 0:
			all = slices.Delete(all, i, i+1)
		case 1:
			all = slices.Insert(all, i, certificate())
		case 2: // renew a certificate
			leaf := all[i].Leaf()
			all[i] = &Certificate{chain: []*x509.Certificate{{DNSNames: leaf.DNSNames, IPAddresses: leaf.IPAddresses}}}
		default:
			all[i] = certificate()
		}
	}
	return all
}

// If one certificate of ten thousand is replaced, added or removed, only that
// certificate is indexed.
func TestAnEditedNameIndexSharesTheRest(t *testing.T) {
	const n = 10_000
	var all []*Certificate
	for i := range n {
		all = append(all, named(fmt.Sprintf("host-%d.example", i)))
	}
	x := newNameIndex(all, new(nameIndex))
	replaced := slices.Clone(all)
	replaced[4711] = named("another.example")
	renewed := slices.Clone(all)
	renewed[4711] = named("host-4711.example")
	for what, next := range map[string][]*Certificate{
		"replaced": replaced, "renewed": renewed, "added": append(slices.Clone(all), named("another.example")), "removed": all[:n-1],
	} {
		y := newNameIndex(next, &x)
		if y.cost.indexed != 1 || y.cost.copied > n/20 {
			t.Errorf("%s: %+v", what, y.cost)
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
			x := newNameIndex(all, new(nameIndex))
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
