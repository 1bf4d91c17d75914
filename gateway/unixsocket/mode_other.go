//go:build !linux

package unixsocket

// ownerOnly does nothing: on this system only the umask sets the mode of the file.
func ownerOnly(uintptr) error { return nil }
