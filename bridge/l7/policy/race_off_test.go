//go:build !race

package policy

func raceEnabled() bool { return false }
