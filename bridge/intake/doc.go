// Package intake does what every listener does with a new connection: it accepts
// it, checks who it is from and the listener's limits, reads its PROXY protocol
// header, completes its TLS handshake, and keeps count of it until it has ended.
//
// The server of a listener owns its connections. It tells the Intake when one
// begins (Enter) and when it has ended (Leave), and the Intake tells each
// connection's Owner when the listener shuts down.
package intake
