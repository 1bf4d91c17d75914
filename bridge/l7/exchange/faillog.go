package exchange

import (
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// logEvery is the minimum time between two warnings about the same upstream and
// reason: an upstream that is down fails every request.
const logEvery = 10 * time.Second

// A failureLog says which failures to log.
type failureLog struct {
	mu   sync.Mutex
	seen map[failureKey]*failureSeen
}

type failureKey struct {
	upstream string
	reason   certs.Reason
}

type failureSeen struct {
	logged     time.Time
	suppressed uint64
}

// maxSeen bounds how many failures of removed upstreams the log remembers.
const maxSeen = 4096

// due reports whether to log a failure now, and how many similar failures were
// skipped since the last one logged.
func (l *failureLog) due(upstream string, reason certs.Reason, now time.Time) (suppressed uint64, log bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := failureKey{upstream, reason}
	seen := l.seen[key]
	if seen == nil {
		if l.seen == nil || len(l.seen) >= maxSeen {
			l.seen = make(map[failureKey]*failureSeen)
		}
		l.seen[key] = &failureSeen{logged: now}
		return 0, true
	}
	if now.Sub(seen.logged) < logEvery {
		seen.suppressed++
		return 0, false
	}
	suppressed, seen.suppressed, seen.logged = seen.suppressed, 0, now
	return suppressed, true
}
