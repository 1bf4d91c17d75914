// Package store holds the desired state: the resources of the admin API as protobuf
// messages.
//
// A State is immutable and may be shared freely. An Edit of a State makes a Draft of
// the next one. This package checks names, etags and references between resources.
// gateway/snapshot checks whether a resource can be made live, and gateway/store/bolt
// keeps the state on disk.
package store
