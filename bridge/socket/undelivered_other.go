//go:build !linux

package socket

// Undelivered always returns 0: only Linux reports it.
func Undelivered(int) int { return 0 }
