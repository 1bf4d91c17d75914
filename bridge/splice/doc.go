// Package splice carries bytes both ways between two connections until both
// have ended their stream. Either may be TLS, decrypted and encrypted here.
//
// Every end a peer gives to its stream is given to the other side in the same
// words: a half-close as a half-close, anything else as a reset. So what a side
// has read to a clean end is known to be all that the other side sent.
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
