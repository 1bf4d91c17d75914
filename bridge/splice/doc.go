// Package splice carries bytes both ways between two connections until both
// have ended their stream. Either may be TLS, decrypted and encrypted here.
//
// Each side's end is forwarded as what it was: a half-close as a half-close,
// anything else as a reset, so that a stream that ends cleanly is complete. A
// reset is sent only when the peer has acknowledged everything that was read for
// it: it would discard what the kernel still holds.
//
// An Engine has a few loops, each with a set of descriptors that it waits for
// (epoll), and a connection belongs to one of them: while nothing moves it has
// neither a goroutine nor a buffer. What a loop does for a connection it does
// without blocking: it reads much at once, decrypts and encrypts all of it, and
// sends the records with one system call. What the kernel does not take at once
// is kept, and nothing more is read from the other side until it is gone.
// Where there is no epoll, goroutines wait, and do the same things.
//
// The loops also watch connections that others serve, while those have nothing to
// do with them (Parked).
package splice
