package proxyproto

import (
	"net"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
)

// A Trust is a set of sources whose headers are accepted. Nil trusts no
// source.
type Trust struct{ from *cidr.Peers }

// FromUnix, in the sources of a Trust, stands for the clients of unix-domain
// sockets.
const FromUnix = cidr.FromUnix

// NewTrust returns a Trust in sources: IP addresses, prefixes such as
// "10.0.0.0/8", and FromUnix. Invalid sources are reported and not trusted.
func NewTrust(sources []string) (*Trust, []cidr.Fault) {
	from, bad := cidr.ParsePeers(sources)
	return &Trust{from}, bad
}

// Trusts reports whether headers from addr are accepted.
func (t *Trust) Trusts(addr net.Addr) bool { return t != nil && t.from.Has(addr) }
