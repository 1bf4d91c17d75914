// Package splicetest has helpers for tests of spliced connections: peers that
// detect how a stream ends, random conversations between two peers, and floods.
//
// A test owns the peers that it creates and closes their connections.
package splicetest
