// Package accesslog writes one line for each request and each connection.
//
// Whoever has something to record puts it into a Record and hands that to a
// Logger, which makes a line of it at once, in a buffer, and never waits: what
// does not fit into a bound is dropped and counted. A goroutine of the Logger's
// own writes many lines with one system call, and owns the file.
//
// Everything in a Record may have been chosen by a peer. In the line it is
// escaped and bounded: a line is always one line, and valid.
package accesslog
