//go:build !linux

package listeners

// descriptorLimit returns 0: it is not known.
func descriptorLimit() int { return 0 }

func openDescriptors() int { return 0 }
