package certs

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/sharded"
)

// normalName returns a DNS name in lower case, without a dot at its end.
func normalName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// parseAddr returns the IP address that a host name spells, as a key of a nameIndex.
func parseAddr(name string) (key string, ok bool) {
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return addr.Unmap().String(), err == nil
}

// A nameIndex finds the certificates that are valid for a name without
// checking the others: a handshake must not cost more with ten thousand
// certificates than with ten. It is immutable.
type nameIndex struct {
	all       []*Certificate
	byName    sharded.Map[[]int32] // by name in lower case, wildcard or IP address: ascending positions in all
	sameNamed []*Certificate       // certificates with the same names as the first, including the first

	cost indexCost
}

// An indexCost is the cost of making an index from another: the numbers of certificates
// indexed and of names copied. Tests read it.
type indexCost struct{ indexed, copied int }

// newNameIndex returns the index of the certificates. It reuses the unchanged
// entries of before, so the cost of replacing one certificate does not depend
// on the number of the others.
func newNameIndex(certs []*Certificate, before *nameIndex) nameIndex {
	var changed []int
	at := func(list []*Certificate, i int) *Certificate {
		if i < len(list) {
			return list[i]
		}
		return nil
	}
	for i := range max(len(certs), len(before.all)) {
		if at(certs, i) != at(before.all, i) {
			changed = append(changed, i)
		}
	}
	if len(changed) > len(certs)/2 { // a new index costs less
		before, changed = new(nameIndex), changed[:0]
		for i := range certs {
			changed = append(changed, i)
		}
	}
	next := nameIndex{all: certs}
	e := nameEditor{before.byName.Edit(), len(before.all) == 0}
	var others []*Certificate // the added and removed certificates
	for _, i := range changed {
		was, now := at(before.all, i), at(certs, i)
		if was != nil && now != nil && sameKeys(was, now) {
			others = append(others, now)
			continue
		}
		if was != nil {
			e.remove(was, int32(i))
			others = append(others, was)
		}
		if now != nil {
			e.add(now, int32(i))
			others = append(others, now)
		}
	}
	next.byName, next.cost = e.Map(), indexCost{len(changed), e.Copied()}
	if len(before.all) > 0 && len(certs) > 0 && before.all[0] == certs[0] && !slices.ContainsFunc(others, func(c *Certificate) bool { return sameNames(c.Leaf(), certs[0].Leaf()) }) {
		next.sameNamed = before.sameNamed
	} else if len(certs) > 0 {
		next.sameNamed = next.withSameNames(certs[0])
	}
	return next
}

// A nameEditor changes the index of a set of certificates.
type nameEditor struct {
	*sharded.Editor[[]int32]
	fresh bool // the lists belong to the editor
}

func (e nameEditor) add(c *Certificate, i int32) {
	for _, key := range keysOf(c) {
		list := e.Get(key)
		at, found := slices.BinarySearch(list, i)
		switch {
		case found: // the certificate contains the name twice
		case e.fresh && at == len(list):
			e.Set(key, append(list, i))
		default:
			e.Set(key, slices.Concat(list[:at], []int32{i}, list[at:]))
		}
	}
}

func (e nameEditor) remove(c *Certificate, i int32) {
	for _, key := range keysOf(c) {
		list := slices.DeleteFunc(slices.Clone(e.Get(key)), func(have int32) bool { return have == i })
		if len(list) == 0 {
			e.Delete(key)
		} else {
			e.Set(key, list)
		}
	}
}

// keysOf returns the names of a certificate as keys of a nameIndex.
func keysOf(c *Certificate) []string {
	leaf := c.Leaf()
	keys := make([]string, 0, len(leaf.DNSNames)+len(leaf.IPAddresses))
	for _, name := range leaf.DNSNames {
		keys = append(keys, normalName(name))
	}
	for _, ip := range leaf.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			keys = append(keys, addr.Unmap().String())
		}
	}
	return keys
}

// sameKeys reports whether a nameIndex has both certificates under the same keys.
func sameKeys(a, b *Certificate) bool {
	return slices.Equal(a.Leaf().DNSNames, b.Leaf().DNSNames) && slices.EqualFunc(a.Leaf().IPAddresses, b.Leaf().IPAddresses, net.IP.Equal)
}

// each calls f with every certificate that is valid for the name, in their
// order, until f returns false. The name must be a non-empty result of
// serverName.
func (x *nameIndex) each(name string, f func(*Certificate) bool) {
	key, address := parseAddr(name)
	if !address {
		name = strings.TrimSuffix(name, ".")
		key = name
	}
	candidates := x.byName.Get(key)
	if _, parent, ok := strings.Cut(key, "."); ok && !address {
		if wild := x.byName.Get("*." + parent); len(candidates) == 0 {
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

// withSameNames returns the certificates that have the same names as the first, in their
// order.
func (x *nameIndex) withSameNames(first *Certificate) []*Certificate {
	var out []*Certificate
	add := func(c *Certificate) {
		if c == first || sameNames(c.Leaf(), first.Leaf()) {
			out = append(out, c)
		}
	}
	if keys := keysOf(first); len(keys) > 0 {
		for _, i := range x.byName.Get(keys[0]) {
			add(x.all[i])
		}
		return out
	}
	for _, c := range x.all { // the first has no names
		add(c)
	}
	return out
}
