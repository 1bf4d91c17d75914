// Package backs keeps the connections to upstreams over which requests are sent:
// HTTP/1.1 connections that carry one request after another, and HTTP/2
// connections that requests share.
//
// Pools own the connections to one upstream. The Back that Get returns belongs to
// its caller until Done. The package knows a request only as a Need.
package backs
