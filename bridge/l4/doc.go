// Package l4 serves TCP listeners: it accepts connections, finishes the
// client's TLS handshake where the listener has TLS, connects to an upstream
// and carries bytes both ways until both sides have ended their stream.
//
// One goroutine owns a connection from accept to close, and starts one more
// for the second direction, which it waits for. Every end a peer gives to its
// stream is given to the other side in the same words: a half-close as a
// half-close, anything else as a reset. So what a side has read to a clean end
// is known to be all that the other side sent.
package l4
