package files

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// awaitTime bounds how long the start waits for files. A working file system
	// answers within milliseconds, and one that is being mounted within seconds.
	awaitTime = 30 * time.Second

	// awaitNotice is how often the log says what the start waits for.
	awaitNotice = 5 * time.Second
)

// Await calls f, which reads or opens files, and returns its result. Meanwhile
// it logs names, which lists the files that it waits for. If f takes too long, or if ctx ends
// first, Await returns an error while f is still running, so that a file system that
// hangs can neither block the start silently nor block the stop.
func Await[T any](ctx context.Context, log hclog.Logger, names string, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	notice, limit := time.NewTicker(awaitNotice), time.NewTimer(awaitTime)
	defer notice.Stop()
	defer limit.Stop()
	var none T
	for {
		select {
		case r := <-done:
			return r.value, r.err
		case <-notice.C:
			log.Warn("still waiting for files: their file system may hang", "files", names)
		case <-limit.C:
			return none, fmt.Errorf("%s: no result within %v: the file system may hang; check that it is mounted and reachable", names, awaitTime)
		case <-ctx.Done():
			return none, fmt.Errorf("%s: %w", names, ctx.Err())
		}
	}
}
