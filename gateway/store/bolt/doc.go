// Package bolt keeps the desired state on this machine's disk, in an embedded
// go.etcd.io/bbolt database that one process at a time may hold.
//
// Private keys live in it, so the directory must be 0700 and the files 0600:
// wider ones are refused. What cannot be read back whole is refused too, and
// left untouched.
package bolt
