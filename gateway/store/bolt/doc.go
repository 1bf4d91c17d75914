// Package bolt keeps the desired state on this machine's disk, in an embedded
// go.etcd.io/bbolt database that one process at a time may hold.
//
// The database holds private keys, so Open rejects a directory wider than 0700 and files
// wider than 0600. It also rejects a damaged database, and leaves its file unchanged.
// With a key every record is sealed, but not names, revision numbers and sizes.
package bolt
