//go:build !race

package alloctest

// Race reports whether the race detector runs, which costs time and memory of its own.
const Race = false
