// Package wire reads and writes HTTP/1 on a socket, in plaintext or over TLS: it
// gathers writes, frames bodies, and holds a buffer only while the buffer has
// bytes.
//
// A Reader and a Writer belong to one connection each, and one goroutine at a
// time uses each of them. Buffers belong to the pool that was given to them.
package wire
