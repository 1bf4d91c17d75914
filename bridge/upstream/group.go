package upstream

// A group is the set of endpoints of an Upstream at one time, with the state to
// choose among them. Only that state changes: when endpoints come or leave, a new
// group replaces it, and the remaining endpoints are in both.
type group struct {
	endpoints []*Endpoint // in the configured order
	fromHost  bool

	primaries, backups *tier // without draining endpoints
}

// newGroup returns a group of endpoints.
func newGroup(p Policy, endpoints []*Endpoint) *group {
	g := &group{endpoints: endpoints}
	var primaries, backups []*Endpoint
	for _, e := range endpoints {
		g.fromHost = g.fromHost || e.fromHost
		switch {
		case e.options.Draining:
		case e.backup.Load():
			backups = append(backups, e)
		default:
			primaries = append(primaries, e)
		}
	}
	g.primaries, g.backups = newTier(p, primaries), newTier(p, backups)
	return g
}

// pick returns the endpoint for t, or nil if t can use none of them.
func (g *group) pick(t *Turn) *Endpoint {
	if e := t.preferred; e != nil && t.canUse(e) {
		return e
	}
	if e := g.primaries.pick(t); e != nil {
		return e
	}
	return g.backups.pick(t)
}

// without returns the error for a t without an endpoint: a limit, or no
// available endpoint.
func (g *group) without(t *Turn) error {
	for _, e := range g.endpoints {
		if e.takesTraffic() && !t.hasTried(e) {
			return ErrOverloaded
		}
	}
	return ErrNoEndpoint
}
