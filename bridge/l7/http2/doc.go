// Package http2 carries exchanges over HTTP/2 connections (RFC 9113), as the
// server of a client's connection and as the client of an upstream's.
//
// A ServerConn or ClientConn owns the net.Conn that it is made with. Serve and
// Run return when the connection is closed and none of its goroutines is left.
// A panic in one of them ends that stream or connection, never the process.
//
// The parts of a connection:
//
//   - The inbox reads frames and processes them (inbox.go, frames.go, data.go,
//     settings.go). Its goroutine alone uses it.
//   - The outbox is the only writer, and owns the buffers of what waits to be sent
//     (outbox.go, frameout.go).
//   - The abuse has the budgets of what a peer may cost; its tables say what each
//     frame does and costs in each state of its stream (abuse.go).
//   - The liveness knows when the peer last showed that it is there, and how it
//     takes what it is sent (liveness.go).
//   - A stream is the state of one exchange (stream.go), of which ServerStream and
//     ClientStream are the two roles.
//
// Framing and HPACK come from golang.org/x/net/http2. The package hands on only
// what no other version of HTTP would read as something else. What a request or
// a response means is not its concern.
//
// Memory is bounded by the streams: each holds about as much as its window allows
// for its reader, and the peer gets its window back only as the bytes are taken
// on. The connection's own window is given back as bytes arrive, so that a stream
// whose reader stalls holds up none of the others.
package http2
