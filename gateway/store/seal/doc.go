// Package seal encrypts the values of a store with XChaCha20-Poly1305.
//
// A store has one data key, a Sealer, which seals every value. A Key, which is kept in a
// file outside the store, wraps the data key. Values are bound to the place where they
// are stored. Keys and Sealers are immutable and may be used concurrently.
package seal
