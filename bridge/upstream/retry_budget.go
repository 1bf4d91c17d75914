package upstream

import "sync/atomic"

// A RetryBudget bounds the share of an upstream's requests in progress that
// may be retries, so that retries do not amplify an outage.
type RetryBudget struct {
	Percent int // share of the requests in progress
	Min     int // minimum number, for any percentage
}

// defaultRetryBudget applies if Options has none.
var defaultRetryBudget = RetryBudget{Percent: 20, Min: 3}

// Retries enforces an upstream's retry budget and counts retries. A request is
// in progress from its Turn's Next to its End, and a retry from Take to Release.
// All methods may be called concurrently and take no lock.
type Retries struct {
	budget     RetryBudget
	inProgress *quota // the requests in progress of the upstream
	retrying   atomic.Int64

	made, refused atomic.Uint64
}

// Retries returns the state of u's retry budget.
func (u *Upstream) Retries() *Retries { return &u.retries }

// Take reports whether the budget allows another request in progress to be
// retried. If so, the caller must call Release once, however often it retries.
func (r *Retries) Take() bool {
	for {
		n := r.retrying.Load()
		if most := max(r.inProgress.n.Load()*int64(r.budget.Percent)/100, int64(r.budget.Min)); n >= most {
			r.refused.Add(1)
			return false
		}
		if r.retrying.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release undoes Take: the request will not be retried again.
func (r *Retries) Release() { r.retrying.Add(-1) }

// InProgress returns the number of requests in progress, and how many of them
// are retries.
func (r *Retries) InProgress() (requests, retries int64) {
	return r.inProgress.n.Load(), r.retrying.Load()
}

// Note counts one retry.
func (r *Retries) Note() { r.made.Add(1) }

// Counts returns the number of retries, and of retries that the budget
// rejected.
func (r *Retries) Counts() (made, refused uint64) { return r.made.Load(), r.refused.Load() }
