package limit

import (
	"cmp"
	"sync/atomic"
	"time"
)

// A Rate is so many in a time, evenly. The zero Rate is no limit.
type Rate struct {
	Count  int           // in a Period, which is at least Count nanoseconds
	Period time.Duration // 0: 1s
	Burst  int           // how many may come at once after a lull; 0: Count
}

// interval returns the time from one to the next.
func (r Rate) interval() int64 {
	return max(int64(cmp.Or(r.Period, time.Second))/int64(r.Count), 1)
}

// A bucket says, as the generic cell rate algorithm has it, when the next is due
// if all come evenly. One may come before it is due by as much as the burst lets
// it. A time is in nanoseconds since the Limiter began. The zero bucket is full.
type bucket int64

// take returns the bucket after one was taken, or for how long there is none to
// be taken.
func (b bucket) take(now int64, r Rate) (after bucket, wait int64) {
	each := r.interval()
	due := max(int64(b), now)
	if early := due - now - each*int64(cmp.Or(r.Burst, r.Count)-1); early > 0 {
		return b, early
	}
	return bucket(due + each), 0
}

// refund returns the bucket after one that was taken is given back.
func (b bucket) refund(r Rate) bucket { return b - bucket(r.interval()) }

// A sharedBucket is one that several goroutines take from.
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
