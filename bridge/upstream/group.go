package upstream

// A group is the endpoints that an Upstream has at one time, with what chooses
// among them. It is immutable but for the state of the choosing: when endpoints
// come or go another group takes its place, and those that stay are in both.
type group struct {
	endpoints []*Endpoint // as configured
	fromHost  bool

	primaries, backups *tier // of those that are not draining
}

// newGroup returns the group of the endpoints given.
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

// pick returns the endpoint that t goes to; nil if it may go to none.
func (g *group) pick(t *Turn) *Endpoint {
	if e := t.preferred; e != nil && t.may(e) {
		return e
	}
	if e := g.primaries.pick(t); e != nil {
		return e
	}
	return g.backups.pick(t)
}

// without returns why t has no endpoint: because of a limit alone, or because
// none is left that takes traffic.
func (g *group) without(t *Turn) error {
	for _, e := range g.endpoints {
		if e.takes() && !t.was(e) {
			return ErrOverloaded
		}
	}
	return ErrNoEndpoint
}
