package certs

import (
	"net/netip"
	"slices"
	"strings"
)

// normalName returns a DNS name in lower case, without a dot at its end.
func normalName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// A nameIndex finds the certificates that are valid for a name without
// checking the others: a handshake must not cost more with ten thousand
// certificates than with ten. It is immutable.
type nameIndex struct {
	all    []*Certificate
	byName map[string][]int32 // DNS names in lower case, wildcards too; of all, ascending
}

func newNameIndex(certs []*Certificate) nameIndex {
	x := nameIndex{all: certs, byName: make(map[string][]int32, len(certs))}
	for i, c := range certs {
		for _, name := range c.Leaf().DNSNames {
			key := normalName(name)
			if at := x.byName[key]; len(at) == 0 || at[len(at)-1] != int32(i) {
				x.byName[key] = append(at, int32(i))
			}
		}
	}
	return x
}

// each calls f with every certificate that is valid for the name, in their
// order, until f returns false. The name is as serverName returns it, and not
// empty.
func (x *nameIndex) each(name string, f func(*Certificate) bool) {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		for _, c := range x.all { // never in a handshake: an address is not sent as SNI
			if c.Matches(name) && !f(c) {
				return
			}
		}
		return
	}
	name = strings.TrimSuffix(name, ".")
	candidates := x.byName[name]
	if _, parent, ok := strings.Cut(name, "."); ok {
		if wild := x.byName["*."+parent]; len(candidates) == 0 {
			candidates = wild
		} else if len(wild) > 0 {
			candidates = slices.Concat(candidates, wild)
			slices.Sort(candidates)
			candidates = slices.Compact(candidates)
		}
	}
	for _, i := range candidates {
		if c := x.all[i]; c.Matches(name) && !f(c) {
			return
		}
	}
}

// withNamesOf returns the certificates that have the same names as the first,
// in their order.
func (x *nameIndex) withNamesOf(first *Certificate) []*Certificate {
	candidates := make([]int32, 0, len(x.all))
	if names := first.Leaf().DNSNames; len(names) > 0 {
		candidates = x.byName[normalName(names[0])]
	} else {
		for i := range x.all {
			candidates = append(candidates, int32(i))
		}
	}
	var out []*Certificate
	for _, i := range candidates {
		if c := x.all[i]; c == first || sameNames(c.Leaf(), first.Leaf()) {
			out = append(out, c)
		}
	}
	return out
}
