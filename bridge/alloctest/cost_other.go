//go:build !linux

package alloctest

import "time"

var begin = time.Now()

// threadTime returns the time that has passed, where there is nothing better.
func threadTime() time.Duration { return time.Since(begin) }
