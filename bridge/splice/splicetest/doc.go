// Package splicetest holds what tests of spliced connections share: peers that see
// how a stream ends, random conversations between two of them, and floods.
//
// A test owns the peers that it creates and closes their connections.
package splicetest
