// Package snapshot compiles the desired state into live objects: certificates,
// upstreams with their pools, and the tables that listeners serve by.
//
// A Snapshot is immutable. A compile reuses, by pointer, each live object of the
// previous snapshot whose inputs are equal, so that its connections, sessions and
// pools survive. Changed objects are built again and never mutated in place.
//
// If a resource that is being written cannot be built, the write fails. If a
// stored resource can no longer be built, because a file is gone or a clock moved,
// it is down with a reason and takes no traffic; everything else keeps serving.
package snapshot
