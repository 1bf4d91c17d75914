//go:build !linux

package unixsocket

// ownerOnly does nothing: the umask alone says what bind creates.
func ownerOnly(uintptr) error { return nil }
