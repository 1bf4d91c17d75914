// Package tickets keeps the keys that encrypt TLS session tickets.
//
// Keys are the ticket keys of one TLS policy. They are random and belong to one process,
// or they are derived from Secrets that the gateways of a fleet share, so that a client
// resumes at any of them. The owner of the secrets rotates them when List.Due
// says so.
package tickets
