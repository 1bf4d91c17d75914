// Package keyfile reads certificates and private keys from PEM, DER and PKCS#12.
//
// Its errors explain what is wrong with a file and how to repair it. They complete
// a sentence about the input ("is empty: want ..."), and never quote a key or
// passphrase. The package bounds the time and memory that a hostile file can cost.
//
// Every function may be called concurrently and does not keep its arguments.
package keyfile
