// Package backs keeps the connections to upstreams over which requests are sent:
// connections of HTTP/1.1 that carry one request after the other, and connections
// of HTTP/2 that requests share.
//
// Pools own the connections to one upstream. What Get returns belongs to its
// caller until Done. The package knows a request only as a Need.
package backs
