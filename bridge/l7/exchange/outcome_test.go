package exchange

import (
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// aborts is a Front on which only Abort is called.
type aborts struct {
	Front // nil
}

func (aborts) Abort(error) {}

// A response that exceeds the total timeout is the endpoint's failure if the gateway
// waited for it, and the client's fault if the client was not reading.
func TestResponsesPastTheTotalTimeoutAreCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		waits func(s *stall)
		want  uint64
	}{
		"the upstream": {func(s *stall) { s.watch() }, 1},
		"the client":   {func(s *stall) { s.watch(); s.unwatch() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			u := upstream.New(upstream.Options{Name: "up", Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: "127.0.0.1:1"}}})
			x := newExchange(t, &Shared{Clock: &manualClock{now: 1}}, u)
			x.try.turn.Begin(u, upstream.Key{})
			defer x.try.turn.End()
			e, err := x.try.turn.Next(nil)
			if err != nil {
				t.Fatal(err)
			}
			x.front, x.try.endpoint = aborts{}, e
			x.upload.sent.Store(true)
			x.cancel.start()
			c.waits(&x.stall)
			x.deadlines.total = time.Now()
			x.deadlines.expired()
			x.try.reportBroken(errTooLong)
			if n := u.Status()[0].Failures[certs.ReasonResponseTimeout]; n != c.want {
				t.Errorf("%d failures of the endpoint were counted, want %d", n, c.want)
			}
		})
	}
}
