// Package certs parses key material, checks it, and runs TLS handshakes with
// it. It is the only place that verifies a peer, and the only place that
// classifies handshake failures.
//
// Every value in this package is immutable once returned, so it may be shared
// freely. Rotating a certificate means building a new value, never changing an
// old one. Parsing is bounded. Text from a peer is escaped and truncated
// before it appears in an error or an Info, and no error contains key
// material.
package certs
