//go:build !linux

package socket

// Room is not known.
func Room(int) int { return 0 }
