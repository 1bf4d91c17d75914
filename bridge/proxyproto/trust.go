package proxyproto

import (
	"fmt"
	"net"
	"net/netip"
)

// A Trust says whose headers are taken. Nil trusts nobody.
type Trust struct {
	from []netip.Prefix
	unix bool
}

// FromUnix, among the sources of a Trust, are the clients of a unix-domain
// socket.
const FromUnix = "unix:"

// A BadSource says which source cannot be one, and why.
type BadSource struct {
	Index  int
	Reason string
}

// NewTrust returns a Trust in sources: IP addresses, prefixes such as
// "10.0.0.0/8", and FromUnix. It trusts none of those that are bad.
func NewTrust(sources []string) (*Trust, []BadSource) {
	t := new(Trust)
	var bad []BadSource
	for i, s := range sources {
		if s == FromUnix {
			t.unix = true
			continue
		}
		p, reason := parseSource(s)
		if reason != "" {
			bad = append(bad, BadSource{i, reason})
			continue
		}
		t.from = append(t.from, p)
	}
	return t, bad
}

func parseSource(s string) (netip.Prefix, string) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Sprintf("is %q; it must be an IP address, a prefix such as \"10.0.0.0/8\", or %q", s, FromUnix)
	case p.Addr().Is4In6():
		return p, fmt.Sprintf("is %q; an IPv4 prefix must be written as one", s)
	case p != p.Masked():
		// Somebody who means one address would trust all of its neighbours.
		return p, fmt.Sprintf("is %q, which has bits beyond the prefix: %s, or the address alone?", s, p.Masked())
	}
	return p, ""
}

// Trusts reports whether a connection from addr may say for whom it is.
func (t *Trust) Trusts(addr net.Addr) bool {
	if t == nil {
		return false
	}
	switch a := addr.(type) {
	case *net.TCPAddr:
		ip := a.AddrPort().Addr().Unmap().WithZone("")
		for _, p := range t.from {
			if p.Contains(ip) {
				return true
			}
		}
	case *net.UnixAddr:
		return t.unix
	}
	return false
}
