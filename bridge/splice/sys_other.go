//go:build !linux

package splice

// room is not known.
func (x *side) room() int { return 0 }
