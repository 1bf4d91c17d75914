// Package confirm rolls back to the previous revision when a pending one is not confirmed
// in time.
//
// The writer owns the pending revision and passes it to the Keeper. The Keeper owns
// the timer, and calls back once the deadline has passed.
package confirm

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// retryEvery is how long the Keeper waits after it failed to roll back.
const retryEvery = time.Second

// A Keeper waits for the deadline of at most one revision. Its methods may be called
// concurrently.
type Keeper struct {
	goBack func(ctx context.Context, revision int64) error
	log    hclog.Logger

	changed chan struct{} // receives a value after a change of the fields below

	mu       sync.Mutex
	revision int64     // 0: no revision is pending
	deadline time.Time // with a monotonic clock reading
}

// New returns a Keeper that calls goBack with a revision whose deadline has passed. If
// goBack fails, the Keeper calls it again until it succeeds or Clear is called.
func New(goBack func(ctx context.Context, revision int64) error, log hclog.Logger) *Keeper {
	return &Keeper{goBack: goBack, log: log, changed: make(chan struct{}, 1)}
}

// Set sets the revision to wait for. It never blocks.
func (k *Keeper) Set(revision int64, deadline time.Time) {
	k.mu.Lock()
	k.revision, k.deadline = revision, deadline
	k.mu.Unlock()
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Clear ends the wait. It never blocks.
func (k *Keeper) Clear() { k.Set(0, time.Time{}) }

func (k *Keeper) current() (int64, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.revision, k.deadline
}

// Run waits for deadlines until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.changed:
		case <-timer.C:
		}
		revision, deadline := k.current()
		switch left := time.Until(deadline); {
		case revision == 0:
			timer.Stop()
		case left > 0:
			timer.Reset(left)
		default:
			timer.Reset(retryEvery)
			if err := k.goBack(ctx, revision); err != nil {
				k.log.Error("cannot roll back to the previous revision; trying again", "revision", revision, "error", err)
			}
		}
	}
}
