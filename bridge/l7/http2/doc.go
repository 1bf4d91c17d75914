// Package http2 carries exchanges over HTTP/2 connections (RFC 9113), as the
// server of a client's connection and as the client of an upstream's.
//
// Frames and HPACK are golang.org/x/net/http2's. The state of connections and
// streams, flow control, the order in which frames leave, and what a peer may
// do before it is shown the door are this package's. What it hands on is what a
// message can be, and nothing that another version of HTTP would read as
// something else; what a request or a response means is for others.
//
// A ServerConn or ClientConn owns the net.Conn that it is made with. Serve and
// Run return when the connection is closed and none of its goroutines is left.
//
// Memory is bounded by the streams: each may have as much waiting for its
// reader as its window allows, and the peer gets its window back only as the
// bytes have been taken on. The connection's own window is given back as bytes
// arrive, so that a stream whose reader stalls holds up none of the others.
package http2
