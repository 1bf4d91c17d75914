package cidr

import (
	"fmt"
	"net/netip"
	"slices"
)

// A Set is a set of IP addresses. Nil is the empty set.
type Set struct {
	// prefixes are sorted and disjoint, so only the last prefix that begins at or
	// before an address can contain the address.
	prefixes []netip.Prefix
}

// A Fault reports an invalid text, and describes valid ones.
type Fault struct {
	Index  int
	Reason string
}

// Parse returns the set of texts: IP addresses, and prefixes such as
// "10.0.0.0/8". Invalid texts are reported in faults and left out of the set.
func Parse(texts []string) (*Set, []Fault) {
	var all []netip.Prefix
	var faults []Fault
	for i, text := range texts {
		p, reason := parse(text)
		if reason != "" {
			faults = append(faults, Fault{i, reason + `: it must be an IP address, or a prefix such as "10.0.0.0/8"`})
			continue
		}
		all = append(all, p)
	}
	return newSet(all), faults
}

// parse returns the prefix of a text, or its fault.
func parse(text string) (p netip.Prefix, reason string) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fmt.Sprintf("is %.100q", text)
	case p.Addr().Is4In6():
		return p, fmt.Sprintf("is %q, an IPv4 prefix in IPv6 notation", text)
	case p != p.Masked():
		// An author who means one address would match all its neighbors.
		return p, fmt.Sprintf("is %q, which has bits beyond the prefix (%s, or the address alone?)", text, p.Masked())
	}
	return p, ""
}

func newSet(all []netip.Prefix) *Set {
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits() // wider prefixes first
	})
	kept := all[:0]
	for _, p := range all {
		if len(kept) == 0 || !kept[len(kept)-1].Contains(p.Addr()) {
			kept = append(kept, p)
		}
	}
	return &Set{slices.Clip(kept)}
}

// Has reports whether an address is in the set. An IPv4-mapped IPv6 address
// counts as IPv4; a zone is ignored. The zero Addr is in no set.
func (s *Set) Has(a netip.Addr) bool {
	if s == nil || len(s.prefixes) == 0 || !a.IsValid() {
		return false
	}
	a = a.Unmap().WithZone("")
	low, high := 0, len(s.prefixes) // the first prefix that begins after a has an index from low to high
	for low < high {
		mid := int(uint(low+high) >> 1)
		if s.prefixes[mid].Addr().Compare(a) <= 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low > 0 && s.prefixes[low-1].Contains(a)
}

// CoversAll reports whether a single prefix covers all of IPv4 or all of IPv6.
func (s *Set) CoversAll() bool {
	return s != nil && slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return p.Bits() == 0 })
}
