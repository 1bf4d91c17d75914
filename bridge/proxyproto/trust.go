package proxyproto

import (
	"net"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
)

// A Trust says whose headers are taken. Nil trusts nobody.
type Trust struct{ from *cidr.Peers }

// FromUnix, among the sources of a Trust, are the clients of a unix-domain
// socket.
const FromUnix = cidr.FromUnix

// NewTrust returns a Trust in sources: IP addresses, prefixes such as
// "10.0.0.0/8", and FromUnix. It trusts none of those that are bad.
func NewTrust(sources []string) (*Trust, []cidr.Fault) {
	from, bad := cidr.ParsePeers(sources)
	return &Trust{from}, bad
}

// Trusts reports whether a connection from addr may say for whom it is.
func (t *Trust) Trusts(addr net.Addr) bool { return t != nil && t.from.Has(addr) }
