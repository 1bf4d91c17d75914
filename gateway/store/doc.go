// Package store holds the desired state: the resources that the admin API
// carried, as the protobuf messages they are.
//
// A State is immutable and so may be shared freely; an Edit on one makes a
// Draft of the next. Names, etags and references between resources are checked
// here. Whether a resource can be made live is for gateway/snapshot to say, and
// keeping it on disk for gateway/store/bolt.
package store
