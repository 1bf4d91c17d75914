package l4

import (
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// The stages of a conn. Storing one publishes the fields that Describe reads: they were
// set before, and do not change afterward.
const (
	accepted int32 = iota
	chosen         // outcome.route, outcome.upstream and secure are set
	bridged        // endpoint, back and late are set
)

// EachConnection calls f with every open connection. f may only call the method ID.
func (s *Server) EachConnection(f func(live.Entry)) { s.intake.EachConnection(f) }

// Describe implements intake.Owner.
func (c *conn) Describe(out *live.Connection) {
	out.Protocol = live.TCP
	stage := c.stage.Load()
	if stage < chosen {
		out.Client.Traffic, out.Client.TrafficKnown = socket.TrafficOf(c.client)
		return
	}
	out.State, out.Route, out.Upstream = live.Connecting, c.outcome.route, c.outcome.upstream
	client := live.SideOf(c.client)
	switch {
	case c.secure != nil:
		client = live.SideOf(c.secure)
	case stage == bridged && c.late != nil:
		client = live.SideOf(c.late)
	}
	client.Announced = out.Client.Announced
	out.Client = client
	if stage < bridged {
		return
	}
	out.State, out.Endpoint, out.Server = live.Active, c.endpoint.Address(), c.endpoint.SideOf(c.back, upstream.Stream)
}
