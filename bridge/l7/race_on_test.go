//go:build race

package l7

func raceEnabled() bool { return true }
