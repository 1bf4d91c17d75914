// Package limit bounds what a listener takes on: how much at once and how much
// in a time, from all clients together and from each.
//
// What it is that is taken on, requests or connections, its users know. The
// state of it all is a Limiter's, whatever becomes of the Limits.
package limit
