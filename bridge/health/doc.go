// Package health asks endpoints whether they are well: over TCP, by a TLS
// handshake, by an HTTP request, or by the gRPC health checking protocol.
//
// Each constructor returns a function for upstream.CheckOptions.Ask. It owns the
// one connection that it makes, which is made with the settings of traffic, and
// has closed it when it returns. It says why an endpoint is not well with an
// error that certs.Classify knows.
package health
