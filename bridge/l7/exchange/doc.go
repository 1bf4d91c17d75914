// Package exchange carries one request and its response between a client and an
// upstream: it sends the request, again if that is safe and allowed, keeps the time
// limits, and passes the response on.
//
// An Exchange knows the client as a Front and the upstream's connection as a
// message.Back. Any Front works with any Back. If one of them can do more than its
// interface says, the exchange finds that through an optional interface
// (optional.go). The package decides neither where a request goes nor what its
// header says.
package exchange
