// Package exchange carries one request and its response between a client and an
// upstream: it sends the request, sends it again if that is safe and allowed,
// enforces the time limits, and forwards the response.
//
// An Exchange knows the client as a Front and the upstream's connection as a
// message.Back. Any Front works with any Back. Optional interfaces (optional.go)
// let the exchange use further abilities of either side. The package decides
// neither the destination nor the header of a request.
package exchange
