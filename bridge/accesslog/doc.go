// Package accesslog writes one line for each request and each connection.
//
// The caller owns a Record and passes it to a Logger. The Logger formats the
// line at once into a buffer and never blocks: lines beyond a bound are
// dropped and counted. The Logger's own goroutine writes many lines with one
// system call, and owns the file.
//
// A peer may have chosen any text in a Record. It is escaped and bounded, so
// that a record is always one valid line.
package accesslog
