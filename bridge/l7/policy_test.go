package l7

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// values makes header rules of lines.
func values(lines ...string) []policy.HeaderValue {
	var out []policy.HeaderValue
	for _, line := range lines {
		name, text, _ := strings.Cut(line, ": ")
		value, err := policy.ParseValue(text, true)
		if err != nil {
			panic(err)
		}
		out = append(out, policy.HeaderValue{Name: name, Value: value})
	}
	return out
}

// fields makes fields of lines.
func fields(lines ...string) message.Fields {
	var f message.Fields
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		f.Add(name, value)
	}
	return f
}

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
