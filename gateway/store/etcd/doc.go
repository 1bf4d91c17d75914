// Package etcd stores the desired state of a fleet of gateways in etcd.
//
// A revision is written as sealed chunks under a prefix of its own, which nothing refers
// to until one compare-and-swap of the head key makes them the new revision. Readers read
// the head and what it refers to. They learn from a watch only that they should read it.
//
// A Store owns the client. It keeps no state of the fleet: callers hold the Head that
// they have read.
package etcd
