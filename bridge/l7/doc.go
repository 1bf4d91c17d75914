// Package l7 serves HTTP listeners: it accepts connections, finishes the
// client's TLS handshake where the listener has TLS, and answers each request
// or carries it to an upstream.
//
// A request is an exchange between a front, the client's half, and a back, the
// upstream's; any front meets any back (exchange.go). HTTP/1.1's are here
// (front1.go, back1.go), over the codec of bridge/l7/http1, HTTP/2's are streams
// of bridge/l7/http2. What a request and its response say is decided by
// bridge/l7/policy, which knows neither version.
//
// A Server owns its connections from accept until they are closed, those that
// were upgraded included. A Back owns the connections to one upstream that wait
// for further requests.
package l7
