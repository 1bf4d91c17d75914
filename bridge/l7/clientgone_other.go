//go:build !linux

package l7

// clientGone cannot look ahead on this system: only a failed write shows that the
// client has left.
func clientGone(*conn) bool { return false }
