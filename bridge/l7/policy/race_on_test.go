//go:build race

package policy

func raceEnabled() bool { return true }
