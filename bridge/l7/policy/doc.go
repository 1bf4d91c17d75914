// Package policy decides what a request and its response say: which header
// fields are removed, set or added, who the client is, what an upstream is told
// about it, and what a failure is answered with.
//
// Everything here is a function of a message and of what is known about the
// connection it came on (Facts). Nothing reads or writes a connection, and
// nothing allocates for a request whose header needs no change.
package policy
