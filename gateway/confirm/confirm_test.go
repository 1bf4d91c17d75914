package confirm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// run runs a Keeper in a bubble with its own time, and returns when its goroutine has
// ended. calls are the times, since the start, at which the Keeper rolled back.
func run(t *testing.T, fail int, steps func(*Keeper)) (calls []string) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var k *Keeper
		k = New(func(_ context.Context, revision int64) error {
			calls = append(calls, fmt.Sprintf("%d at %v", revision, time.Since(began)))
			if fail--; fail >= 0 {
				return errors.New("no space left on device")
			}
			k.Clear()
			return nil
		}, hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			k.Run(ctx)
		}()
		steps(k)
		cancel()
		<-done
	})
	return calls
}

func TestAKeeperRollsBackAtTheDeadline(t *testing.T) {
	after := func(d time.Duration) time.Time { return time.Now().Add(d) }
	for name, test := range map[string]struct {
		fail  int
		steps func(*Keeper)
		want  []string
	}{
		"no revision": {0, func(*Keeper) { time.Sleep(time.Hour) }, nil},
		"one revision": {0, func(k *Keeper) {
			k.Set(7, after(time.Minute))
			time.Sleep(time.Hour)
		}, []string{"7 at 1m0s"}},
		"a confirmed revision": {0, func(k *Keeper) {
			k.Set(7, after(time.Minute))
			time.Sleep(59 * time.Second)
			k.Clear()
			time.Sleep(time.Hour)
		}, nil},
		"a revision after a confirmed one": {0, func(k *Keeper) {
			k.Set(7, after(time.Minute))
			k.Clear()
			k.Set(8, after(2*time.Minute))
			time.Sleep(time.Hour)
		}, []string{"8 at 2m0s"}},
		"rolling back fails twice": {2, func(k *Keeper) {
			k.Set(7, after(time.Minute))
			time.Sleep(time.Hour)
		}, []string{"7 at 1m0s", "7 at 1m1s", "7 at 1m2s"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := run(t, test.fail, test.steps); !slices.Equal(got, test.want) {
				t.Errorf("rolled back: %q, want %q", got, test.want)
			}
		})
	}
}
