// Package health checks endpoints: over TCP, by a TLS handshake, by an HTTP
// request, or by the gRPC health checking protocol.
//
// Each constructor returns a function for upstream.CheckOptions.Check. The
// function dials one connection with the settings of traffic, and closes it before it
// returns. certs.Classify returns the reason for its error.
package health
