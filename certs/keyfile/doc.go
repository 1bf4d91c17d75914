// Package keyfile reads certificates and private keys from PEM, DER and PKCS#12.
//
// It names what spoils a file and how to repair it, and bounds the time and memory
// that a hostile file can cost. Its errors complete a sentence about the input ("is
// empty: want ..."), and never quote a key or passphrase.
//
// Every function may be called concurrently and keeps nothing of its arguments.
package keyfile
