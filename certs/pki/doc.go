// Package pki issues certificates from a private certification authority, for
// `drawbridge pki`, the demonstration and the tests.
//
// The caller owns a CA, which is in memory until it is saved. On disk it is a
// directory of PEM files that nginx, OpenSSL and Java can read:
//
//	ca.pem  ca-key.pem                        the root
//	intermediate.pem  intermediate-key.pem    the intermediate, if there is one
//	NAME.pem  NAME-key.pem                    each certificate issued, with its intermediates
//
// The directory is made with mode 0700 and keys with 0600. This package never
// overwrites a file.
package pki
