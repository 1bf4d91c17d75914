package upstream

import "slices"

// A group is the endpoints that an Upstream has at one time, with what chooses
// among them. It is immutable but for the state of the choosing: when endpoints
// come or go another group takes its place, and those that stay are in both.
type group struct {
	endpoints []*Endpoint // as configured
	fromHost  bool

	primaries, backups *balancer
	only               []*Endpoint // the answer of order when there is but one
}

// newGroup returns the group of the endpoints given.
func newGroup(endpoints []*Endpoint) *group {
	g := &group{endpoints: endpoints}
	var primaries, backups []*Endpoint
	for _, e := range endpoints {
		g.fromHost = g.fromHost || e.fromHost
		switch {
		case e.options.Draining:
		case e.options.Backup:
			backups = append(backups, e)
		default:
			primaries = append(primaries, e)
		}
	}
	g.primaries, g.backups = newBalancer(primaries), newBalancer(backups)
	if len(primaries)+len(backups) == 1 {
		g.only = slices.Concat(primaries, backups)
	}
	return g
}

// order returns the endpoints to try, as Upstream.Order says.
func (g *group) order() []*Endpoint {
	if g.only != nil {
		return g.only
	}
	order := make([]*Endpoint, 0, len(g.primaries.shares)+len(g.backups.shares))
	order = g.primaries.next(order)
	return g.backups.next(order)
}
