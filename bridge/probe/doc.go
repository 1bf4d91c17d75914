// Package probe finds out whether an endpoint can be reached and shaken hands
// with, and if not, why: what the facts are, and which setting to change.
//
// A probe is a connection of its own. It uses the settings that traffic would
// use, but none of its sessions and none of its counters, and it ends before a
// byte of anybody's data is sent. When a handshake fails it is tried again with
// one setting changed at a time, so that the answer can say what would have
// worked; no trial verifies less than the settings ask for.
//
// Whatever the endpoint said is bounded and escaped in every text returned.
// Fields are named as the API names them.
package probe
