// Package l7 serves HTTP listeners: it accepts connections, finishes the
// client's TLS handshake where the listener has TLS, and answers each request
// or carries it to an upstream.
//
// HTTP itself is net/http's, on both sides. What is decided about a request
// is not: its target (target.go), its header (header.go) and what a failure is
// answered with (answer.go) know only small types of this package.
//
// A Server owns its connections from accept until they are closed, those that
// were upgraded included. A Back owns the connections to one upstream that wait
// for further requests.
package l7
