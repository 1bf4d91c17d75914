//go:build !linux

package alloctest

import "time"

var begin = time.Now()

// threadTime returns the elapsed time on systems without a clock of the thread.
func threadTime() time.Duration { return time.Since(begin) }
