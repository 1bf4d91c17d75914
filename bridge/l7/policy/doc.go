// Package policy decides the contents of requests and responses: which header
// fields are removed, set or added, which client sent the request, what the
// upstream learns about that client, and how a failure is answered.
//
// Everything here is a function of a message and of the facts about its connection
// (Facts). Nothing reads or writes a connection, and nothing allocates for a
// request whose header needs no change.
package policy
