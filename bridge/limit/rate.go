package limit

import (
	"cmp"
	"sync/atomic"
	"time"
)

// A Rate is an even number of events per time. The zero Rate means no limit.
type Rate struct {
	Count  int           // events in a Period, which is at least Count nanoseconds
	Period time.Duration // 0: 1s
	Burst  int           // maximum events at once after a pause; 0: Count
}

// interval returns the time between two events.
func (r Rate) interval() int64 {
	return max(int64(cmp.Or(r.Period, time.Second))/int64(r.Count), 1)
}

// A bucket is the theoretical arrival time of the generic cell rate algorithm:
// when the next event is due if all arrive evenly. The burst determines how
// early an event may be. Times are in nanoseconds since the Limiter began. The
// zero bucket is full.
type bucket int64

// take returns the bucket after one event, or how long to wait for the next.
func (b bucket) take(now int64, r Rate) (after bucket, wait int64) {
	each := r.interval()
	due := max(int64(b), now)
	if early := due - now - each*int64(cmp.Or(r.Burst, r.Count)-1); early > 0 {
		return b, early
	}
	return bucket(due + each), 0
}

// refund returns the bucket after one event is undone.
func (b bucket) refund(r Rate) bucket { return b - bucket(r.interval()) }

// A sharedBucket is a bucket for concurrent use.
type sharedBucket struct{ state atomic.Int64 }

func (s *sharedBucket) take(now int64, r Rate) (wait int64) {
	for {
		before := s.state.Load()
		after, wait := bucket(before).take(now, r)
		if wait > 0 || s.state.CompareAndSwap(before, int64(after)) {
			return wait
		}
	}
}
