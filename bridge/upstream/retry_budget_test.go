package upstream_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// sendRequests keeps n requests in progress until end is called.
func sendRequests(t *testing.T, u *upstream.Upstream, n int) (end func()) {
	t.Helper()
	turns := make([]*upstream.Turn, n)
	for i := range turns {
		turns[i] = begin(u)
		if _, err := turns[i].Next(nil); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		for _, turn := range turns {
			turn.End()
		}
	}
}

func TestRetriesAreAShareOfTheRequestsInProgress(t *testing.T) {
	for _, c := range []struct {
		budget     *upstream.RetryBudget
		inProgress int
		want       int
	}{
		{nil, 0, 3}, {nil, 1, 3}, {nil, 15, 3}, {nil, 19, 3}, {nil, 20, 4}, {nil, 1000, 200},
		{&upstream.RetryBudget{Percent: 50}, 1, 0}, {&upstream.RetryBudget{Percent: 50}, 2, 1}, {&upstream.RetryBudget{Percent: 50}, 7, 3},
		{&upstream.RetryBudget{Percent: 100}, 10, 10},
		{&upstream.RetryBudget{Min: 5}, 1000, 5},
		{&upstream.RetryBudget{}, 1000, 0},
	} {
		u := upstream.New(upstream.Options{Name: "up", RetryBudget: c.budget, Endpoints: []upstream.EndpointOptions{endpoint("a:1", 1)}})
		sendRequests(t, u, c.inProgress)
		r := u.Retries()
		n := 0
		for r.Take() {
			r.Note()
			n++
		}
		if made, refused := r.Counts(); n != c.want || made != uint64(n) || refused != 1 {
			t.Errorf("%v, %d in progress: %d retries, want %d; counted %d and %d refused", c.budget, c.inProgress, n, c.want, made, refused)
		}
		if n > 0 {
			r.Release()
			if !r.Take() || r.Take() {
				t.Errorf("%v: a release affected another request", c.budget)
			}
		}
	}
}

// Concurrent calls never exceed the number of retries in progress that the
// budget allows.
func TestConcurrentRetriesStayWithinTheBudget(t *testing.T) {
	u := upstream.New(upstream.Options{Name: "up", Endpoints: []upstream.EndpointOptions{endpoint("a:1", 1)}})
	r, end := u.Retries(), sendRequests(t, u, 100)
	var all sync.WaitGroup
	var inProgress, took atomic.Int64
	for range 16 {
		all.Go(func() {
			for range 1000 {
				if r.Take() {
					took.Add(1)
					if n := inProgress.Add(1); n > 20 {
						t.Errorf("%d retries in progress", n)
					}
					inProgress.Add(-1)
					r.Release()
				}
			}
		})
	}
	all.Wait()
	end()
	if requests, retries := r.InProgress(); requests != 0 || retries != 0 || took.Load() == 0 {
		t.Errorf("%d requests and %d retries are left; %d were made", requests, retries, took.Load())
	}
}
