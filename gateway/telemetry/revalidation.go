package telemetry

import "github.com/drawbridge-gateway/drawbridge/bridge/validity"

// publishRevalidation publishes how many peers of open connections no longer verified.
func publishRevalidation(o *object, side string, set *validity.Set) {
	counts := set.Counts()
	publishByReason(o, side+".revalidated", counts.Ended, pair{"result", "ended"})
	publishByReason(o, side+".revalidated", counts.Reported, pair{"result", "reported"})
}
