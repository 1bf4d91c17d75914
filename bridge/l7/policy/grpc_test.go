package policy

import (
	"math"
	"testing"
	"time"
)

func TestCallTimeoutsAreReadStrictly(t *testing.T) {
	for given, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond, "6n": 6,
		"0n": 0, "00000010S": 10 * time.Second, "99999999n": 99_999_999, "99999999H": math.MaxInt64,
		"": -1, "S": -1, "1": -1, "10": -1, "1s": -1, "1h": -1, "1 S": -1, " 1S": -1, "1S ": -1, "+1S": -1, "-1S": -1, "1.5S": -1, "0x1S": -1,
		"123456789S": -1, "1S1": -1, "1SS": -1, "١S": -1, "1S,1S": -1,
	} {
		d, ok := parseCallTimeout(given)
		if !ok {
			d = -1
		}
		if d != want {
			t.Errorf("%q: %v, want %v", given, d, want)
		}
	}
}
