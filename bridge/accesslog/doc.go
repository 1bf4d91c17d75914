// Package accesslog writes one line for each request and each connection.
//
// The caller owns a Record and passes it to a Logger. The Logger formats the
// line into a buffer and never blocks: when the buffer is full, it drops and
// counts lines. The Logger's own goroutine owns the file, and writes many
// lines with one system call.
//
// A peer may have chosen any text in a Record. The Logger escapes and
// truncates the text, so that a record is always one valid line.
package accesslog
