package cidr

import "net/netip"

// An Access says which clients are served. Nil, and the zero Access, serve all.
type Access struct {
	Allow *Set // only these are, though it may be nobody; nil: all that are not denied
	Deny  *Set // these are not, even if they are allowed
}

// Serves reports whether a client is served. Those without an address, of a
// unix-domain socket, always are: who may connect is that file's affair.
func (a *Access) Serves(client netip.Addr) bool {
	if a == nil || !client.IsValid() {
		return true
	}
	return (a.Allow == nil || a.Allow.Has(client)) && !a.Deny.Has(client)
}
