// Package pki issues certificates from a private certification authority, for
// `drawbridge pki`, the demonstration and the tests.
//
// A new CA exists only in memory, and belongs to its caller. Save writes it to a
// directory of PEM files, which nginx, OpenSSL and Java can read:
//
//	ca.pem  ca-key.pem                        the root
//	intermediate.pem  intermediate-key.pem    the intermediate, if there is one
//	NAME.pem  NAME-key.pem                    each certificate issued, with its intermediates
//
// The directory has mode 0700, and each file of a key has mode 0600. This package
// never overwrites a file.
package pki
