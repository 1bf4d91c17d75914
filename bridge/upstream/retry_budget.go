package upstream

import "sync/atomic"

// A RetryBudget bounds how many of the requests to an upstream that are under way
// may be retries, so that these never multiply an outage.
type RetryBudget struct {
	Percent int // of the requests under way
	Least   int // so many in any case
}

// defaultRetryBudget is that of Options without one.
var defaultRetryBudget = RetryBudget{Percent: 20, Least: 3}

// Retries keeps an upstream's retries to its budget, and counts them. A request is
// under way from its Turn's Next to its End, and a retry from Take to Give. All
// methods may be called concurrently; none takes a lock.
type Retries struct {
	budget   RetryBudget
	underWay *quota // the upstream's
	retrying atomic.Int64

	made, refused atomic.Uint64
}

// Retries returns what keeps u's retries to its budget.
func (u *Upstream) Retries() *Retries { return &u.retries }

// Take reports whether the budget allows one more of the requests under way to be
// tried again. If so it must Give in the end, however often it is.
func (r *Retries) Take() bool {
	for {
		n := r.retrying.Load()
		if most := max(r.underWay.n.Load()*int64(r.budget.Percent)/100, int64(r.budget.Least)); n >= most {
			r.refused.Add(1)
			return false
		}
		if r.retrying.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Give gives back what Take took: the request is not tried again any more.
func (r *Retries) Give() { r.retrying.Add(-1) }

// UnderWay returns how many requests are under way, and how many of them as
// retries.
func (r *Retries) UnderWay() (requests, retries int64) { return r.underWay.n.Load(), r.retrying.Load() }

// Note counts a request that is tried again.
func (r *Retries) Note() { r.made.Add(1) }

// Counts tells how often a request was tried again, and how often one was not
// because of the budget.
func (r *Retries) Counts() (made, refused uint64) { return r.made.Load(), r.refused.Load() }
