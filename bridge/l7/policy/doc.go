// Package policy decides what a request and its response say: which header
// fields are removed, set or added, which client sent the request, what the
// upstream learns about it, and how a failure is answered.
//
// Everything here is a function of a message and of the facts about the connection
// it came on (Facts). Nothing reads or writes a connection, and nothing allocates
// for a request whose header needs no change.
package policy
