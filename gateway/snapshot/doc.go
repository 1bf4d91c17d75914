// Package snapshot compiles the desired state into live objects: certificates,
// upstreams with their pools, and the tables that listeners serve by.
//
// A Snapshot is immutable. A compile reuses, by pointer, each live object of the
// snapshot before it whose inputs are equal, so that its connections, sessions
// and pools survive; what changed is built anew and never mutated in place. An
// object that cannot be built is refused while it is being written, and down,
// with its reason, when it was fine once (a file is gone, a clock moved): it
// then takes no traffic, and everything else does.
package snapshot
