package listeners

import (
	"maps"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Impact returns the losses of the listeners, by name, if Commit is called with p and
// next. The snapshot of the last Commit must be live.
func (s *Set) Impact(p *Prepared, next *snapshot.Snapshot) []*adminv1.ListenerImpact {
	touched := maps.Clone(p.going)
	for _, r := range p.kept {
		touched[r.Name] = r
	}
	var out []*adminv1.ListenerImpact
	for _, name := range slices.Sorted(maps.Keys(touched)) {
		was, now := s.served.Listener(name), next.Listener(name)
		i := &adminv1.ListenerImpact{Name: name, ResumptionLost: was != nil && was.LosesResumption(now)}
		var t validity.Tally
		if p.going[name] != nil {
			t = touched[name].server().Tally(nil)
		} else if policy := now.Validity(); policy != nil {
			t = touched[name].server().Tally(policy)
		}
		i.ConnectionsClosed, i.ConnectionsDrained, i.RequestsInFlight = int64(t.Closed), int64(t.Drained), int64(t.Requests)
		if i.ResumptionLost || t != (validity.Tally{}) {
			out = append(out, i)
		}
	}
	return out
}
