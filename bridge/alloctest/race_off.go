//go:build !race

package alloctest

// Race reports whether the race detector runs, which needs additional time and memory.
const Race = false
