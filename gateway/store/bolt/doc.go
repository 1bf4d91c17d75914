// Package bolt keeps the desired state on this machine's disk, in an embedded
// go.etcd.io/bbolt database that one process at a time may hold.
//
// The database holds private keys, so Open rejects a directory wider than 0700 and files
// wider than 0600. With a key, every record is sealed; names, revision numbers and sizes
// are not. It also rejects a damaged database, and leaves its file unchanged.
package bolt
