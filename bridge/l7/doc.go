// Package l7 serves HTTP listeners: it accepts connections, completes the
// client's TLS handshake if the listener has TLS, and answers each request or
// forwards it to an upstream.
//
// A request is an exchange between a front, the client's half, and a back, the
// upstream's; any front works with any back (exchange.go). Fronts are here:
// front1.go serves HTTP/1.1, front2.go the streams of bridge/l7/http2. Backs are
// connections that bridge/l7/backs keeps. bridge/l7/policy decides the content of
// a request and its response, and knows no version of HTTP.
//
// A Server owns its connections, including upgraded ones, from accept until they
// are closed.
package l7
