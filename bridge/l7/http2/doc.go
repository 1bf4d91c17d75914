// Package http2 carries HTTP exchanges over HTTP/2 connections (RFC 9113), in
// the server role for clients and in the client role for upstreams.
//
// A ServerConn or ClientConn owns its net.Conn. Serve and Run return when the
// connection is closed and all its goroutines have ended. A panic in one of
// them ends that stream or connection, never the process.
//
// The parts of a connection:
//
//   - The inbox reads and processes frames (inbox.go, frames.go, data.go,
//     settings.go). Only the reading goroutine uses it.
//   - The outbox is the only writer, and owns the buffers of queued frames
//     (outbox.go, frameout.go).
//   - The abuse holds the budgets of the peer. Its tables say how each frame is
//     handled, and what it costs, in each state of its stream (abuse.go).
//   - The liveness records when the peer last sent something, and whether it still
//     reads (liveness.go).
//   - A stream is the state of one exchange (stream.go); ServerStream and
//     ClientStream are its two roles.
//
// Framing and HPACK come from golang.org/x/net/http2. The package rejects any
// message that another version of HTTP would read differently. It does not
// interpret requests and responses.
//
// Stream windows bound the memory: a stream holds about as much unread data as
// its window allows, and the window reopens only as the reader takes the data.
// The connection's window reopens as bytes arrive, so a stream whose reader
// stalls does not hold up the others.
package http2
