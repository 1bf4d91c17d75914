//go:build !linux

package socket

// WasReset always returns false: only Linux reports it.
func WasReset(int) bool { return false }
