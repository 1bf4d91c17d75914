package telemetry

import "github.com/drawbridge-gateway/drawbridge/bridge/validity"

// publishRevalidation publishes how often the peer of an open connection no longer verified.
func publishRevalidation(o *object, side string, set *validity.Set) {
	counts := set.Counts()
	for reason, n := range counts.Ended {
		o.counter(side+".revalidated", float64(n), pair{"result", "ended"}, pair{"reason", string(reason)})
	}
	for reason, n := range counts.Reported {
		o.counter(side+".revalidated", float64(n), pair{"result", "reported"}, pair{"reason", string(reason)})
	}
}
