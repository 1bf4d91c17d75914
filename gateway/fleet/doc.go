// Package fleet makes a gateway a member of a fleet, which shares its desired state in
// etcd.
//
// A Member is the store of the gateway's writer: it commits to etcd, and keeps a copy of
// the latest state in bolt. It also follows the commits of other members: each becomes
// an edit that the gateway applies like any other. The Member owns both stores.
package fleet
