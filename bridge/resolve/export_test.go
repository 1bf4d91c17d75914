package resolve

import "net/netip"

// NewNameWith is NewName on a machine with routes to the addresses for which
// routed is true.
func NewNameWith(q Query, routed func(netip.Addr) bool) *Name {
	n := NewName(q)
	n.routed = routed
	return n
}

var IsRouted = isRouted
