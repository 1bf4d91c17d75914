// Package pki is a private certification authority: what `drawbridge pki`, the
// demonstration and the tests issue certificates from.
//
// A CA lives in memory until it is saved; on disk it is a directory of PEM
// files that nginx, OpenSSL and Java read as they are:
//
//	ca.pem  ca-key.pem                        the root
//	intermediate.pem  intermediate-key.pem    the intermediate, if there is one
//	NAME.pem  NAME-key.pem                    each certificate issued, with its intermediates
//
// The directory is made with mode 0700 and keys with 0600. No function here
// ever overwrites a file.
package pki
