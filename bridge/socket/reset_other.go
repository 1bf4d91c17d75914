//go:build !linux

package socket

// WasReset always reports false: only Linux tells.
func WasReset(int) bool { return false }
