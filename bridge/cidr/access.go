package cidr

import "net/netip"

// An Access decides which clients are served. A nil or zero Access serves all
// clients.
type Access struct {
	Allow *Set // only these clients, possibly none; nil: all clients that are not denied
	Deny  *Set // clients that are never served, even if allowed
}

// Serves reports whether a client is served. Clients of a unix-domain socket,
// which have no address, are always served. The permissions of the socket file
// restrict them.
func (a *Access) Serves(client netip.Addr) bool {
	if a == nil || !client.IsValid() {
		return true
	}
	return (a.Allow == nil || a.Allow.Has(client)) && !a.Deny.Has(client)
}
