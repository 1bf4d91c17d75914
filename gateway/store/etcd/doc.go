// Package etcd stores the desired state of a fleet of gateways in etcd.
//
// A revision is written as sealed chunks under its own prefix. Then a single
// compare-and-swap of the head key makes them the new revision. Readers read the head and
// the content that it refers to. A watch only tells them when to read the head.
//
// A Store owns the client. It keeps no state of the fleet: callers hold the Head that
// they have read.
package etcd
