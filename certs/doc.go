// Package certs parses key material, checks it, and does TLS with it: it is the
// only place that verifies a peer, and the only place that says why a handshake
// failed.
//
// Every value in this package is immutable once returned, so it may be shared
// freely. Rotating a certificate means building a new value, never changing an
// old one. What is parsed is bounded; what a peer wrote is escaped and cut
// before it appears in an error or an Info; no error ever holds key material.
package certs
