// Package splice carries bytes both ways between two connections, either of which
// may be TLS, until both streams have ended.
//
// A Splice owns its two connections and closes them. An Engine owns a few loops;
// each loop owns an epoll set and the splices registered with it. Splices gather on
// as few loops as can carry them, since a loop that has several events at a time costs
// less. A splice that moves no bytes has neither a goroutine nor a buffer.
//
// A loop never blocks. It reads much at once, decrypts and encrypts all of it, and
// sends the records with one system call. A splice queues what the kernel does not
// accept, and reads nothing more from the other side until the queue is empty.
// Without epoll, goroutines wait for each side and run the same code.
//
// Each side's close is forwarded as what it was: a half-close as a half-close,
// anything else as a reset. So a stream that ends cleanly is complete. A splice
// sends a reset only after the peer has acknowledged everything sent to it, because
// a reset discards bytes that the kernel still holds.
//
// The loops also watch idle connections that other packages serve (Parked).
package splice
