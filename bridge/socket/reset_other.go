//go:build !linux

package socket

// WasReset always reports false: only Linux tells.
func (s *Socket) WasReset() bool { return false }
