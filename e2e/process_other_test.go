//go:build !linux

package e2e

import (
	"os/exec"
	"testing"
)

func dieWithParent(*exec.Cmd) {}

// peakMemory is unknown on this platform.
func peakMemory(testing.TB, int) int { return 0 }
