package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Readiness holds the conditions for /readyz, the health service and
// GetStatus.ready. The zero value requires that the stored state was restored: each
// listener is up, or the log, GetStatus and the metrics report it as down. A
// gateway with an empty state is ready, because it waits for its first write.
type Readiness struct {
	// Listeners requires that every listener is up.
	Listeners bool

	// Revision requires that at least one revision was applied.
	Revision bool
}

// ReadinessNames are the names that ParseReadiness accepts.
var ReadinessNames = []string{"restored", "listeners", "revision"}

// ParseReadiness returns the conditions for a list of ReadinessNames.
func ParseReadiness(names []string) (Readiness, error) {
	var r Readiness
	for _, n := range names {
		switch n {
		case "restored": // always required
		case "listeners":
			r.Listeners = true
		case "revision":
			r.Revision = true
		default:
			return r, fmt.Errorf("%q: must be one of %s", n, strings.Join(ReadinessNames, ", "))
		}
	}
	return r, nil
}

// maxDownListed bounds how many listeners the reason names.
const maxDownListed = 5

// readyText returns the body of /readyz, and whether the gateway is ready.
func (g *Gateway) readyText() (string, bool) {
	if reason := g.notReady(); reason != "" {
		return reason, false
	}
	return "ready", true
}

// showReadiness updates the health service. It is called after every change that may
// affect readiness.
func (g *Gateway) showReadiness() {
	g.showing.Lock() // calls are serialized, so that an old result cannot replace a newer one
	defer g.showing.Unlock()
	g.admin.SetServing(g.notReady() == "")
}

// notReady returns why the gateway is not ready, or "" if it is ready.
func (g *Gateway) notReady() string {
	if !g.serving.Load() {
		return "not ready"
	}
	snap := g.live.Load()
	if g.readiness.Revision && snap.State().Revision() == 0 {
		return "not ready: nothing was applied yet"
	}
	if !g.readiness.Listeners {
		return ""
	}
	down := g.listeners.Down()
	for _, l := range snap.Listeners() {
		if l.Down != "" {
			down[l.Name] = l.Down
		}
	}
	if len(down) == 0 {
		return ""
	}
	names := slices.Sorted(maps.Keys(down))
	count := "1 listener is down"
	if len(names) > 1 {
		count = fmt.Sprintf("%d listeners are down", len(names))
	}
	reason := fmt.Sprintf("not ready: %s: %s", count, strings.Join(names[:min(len(names), maxDownListed)], ", "))
	if len(names) > maxDownListed {
		reason += fmt.Sprintf(" and %d more", len(names)-maxDownListed)
	}
	return reason
}
