package exchange

import (
	"slices"
	"testing"
	"time"
)

func TestPausesDoubleWithJitter(t *testing.T) {
	r := Retry{Backoff: 100 * time.Millisecond}
	for tries, most := range []time.Duration{1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 3: 400 * time.Millisecond, 8: maxBackoff, 9: maxBackoff} {
		if most == 0 {
			continue
		}
		var all []time.Duration
		for range 1000 {
			all = append(all, r.pause(tries))
		}
		if low, high := slices.Min(all), slices.Max(all); low < most/2 || low > most*6/10 || high > most || high < most*9/10 {
			t.Errorf("after %d tries from %v to %v, want up to %v", tries, low, high, most)
		}
	}
	if d := (&Retry{}).pause(1); d > 25*time.Millisecond || d < 12*time.Millisecond {
		t.Errorf("by default %v", d)
	}
}
