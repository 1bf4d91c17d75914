package exchange

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

func TestWarningsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l failureLog
		check := func(up string, r certs.Reason, wantSuppressed uint64, want bool) {
			t.Helper()
			if n, log := l.due(up, r, time.Now()); n != wantSuppressed || log != want {
				t.Errorf("%s %s: %d, %v; want %d, %v", up, r, n, log, wantSuppressed, want)
			}
		}
		check("a", certs.ReasonExpired, 0, true)
		check("a", certs.ReasonExpired, 0, false)
		check("a", certs.ReasonOther, 0, true)
		check("b", certs.ReasonExpired, 0, true)
		time.Sleep(9 * time.Second)
		check("a", certs.ReasonExpired, 0, false)
		time.Sleep(time.Second)
		check("a", certs.ReasonExpired, 2, true)
		check("a", certs.ReasonExpired, 0, false)
	})
}
