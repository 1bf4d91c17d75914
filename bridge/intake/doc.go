// Package intake prepares new connections for listeners of every kind: it accepts the
// connection, applies access rules and limits, reads the PROXY protocol header, and
// completes the TLS handshake. It also ends an open connection whose client no longer
// verifies.
//
// The listener's server owns its connections. It calls Enter when a connection
// begins, Leave when it is closed, and Done when no goroutine uses it any more. The
// Intake counts the connections and calls each one's Owner when the listener shuts
// down.
package intake
