package cidr

import "net/netip"

// An Access decides which clients are served. A nil or zero Access serves all
// clients.
type Access struct {
	Allow *Set // only these clients, possibly none of them; nil: all that are not denied
	Deny  *Set // never these, even if allowed
}

// Serves reports whether a client is served. Clients without an address, of a
// unix-domain socket, always are: the permissions of the socket file restrict
// them.
func (a *Access) Serves(client netip.Addr) bool {
	if a == nil || !client.IsValid() {
		return true
	}
	return (a.Allow == nil || a.Allow.Has(client)) && !a.Deny.Has(client)
}
