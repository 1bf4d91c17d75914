package cidr

import (
	"net"
	"net/netip"
)

// FromUnix, in the input of ParsePeers, stands for the clients of unix-domain
// sockets.
const FromUnix = "unix:"

// Peers is a set of possible peers of a connection. Nil is the empty set.
type Peers struct {
	addresses *Set
	unix      bool
}

// ParsePeers is like Parse, but also accepts FromUnix.
func ParsePeers(texts []string) (*Peers, []Fault) {
	p := new(Peers)
	var all []netip.Prefix
	var faults []Fault
	for i, text := range texts {
		if text == FromUnix {
			p.unix = true
			continue
		}
		prefix, reason := parse(text)
		if reason != "" {
			faults = append(faults, Fault{i, reason + `: it must be an IP address, a prefix such as "10.0.0.0/8", or "unix:"`})
			continue
		}
		all = append(all, prefix)
	}
	p.addresses = newSet(all)
	return p, faults
}

// Has reports whether addr is in p.
func (p *Peers) Has(addr net.Addr) bool {
	if p == nil {
		return false
	}
	switch a := addr.(type) {
	case *net.TCPAddr:
		return p.addresses.Has(a.AddrPort().Addr())
	case *net.UnixAddr:
		return p.unix
	}
	return false
}

// HasAddress reports whether an IP address is in p.
func (p *Peers) HasAddress(a netip.Addr) bool { return p != nil && p.addresses.Has(a) }

// CoversAll is Set.CoversAll for the IP addresses of p.
func (p *Peers) CoversAll() bool { return p != nil && p.addresses.CoversAll() }
