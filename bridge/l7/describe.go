package l7

import (
	"net"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// A latest holds facts about the latest request of a connection. It holds only names, so
// that an idle connection keeps no table or upstream in memory.
type latest struct {
	route    atomic.Pointer[string]        // nil: no route matched
	endpoint atomic.Pointer[upstream.Name] // nil: the request was not forwarded
	tunnel   atomic.Pointer[tunnel]        // nil: the connection was not upgraded
}

// A tunnel is an upgraded connection with HTTP/1.1 on both sides.
type tunnel struct {
	protocol string
	back     net.Conn
	endpoint *upstream.Endpoint
}

// The note methods write only changed values, because most requests of a connection
// have the same ones.

func (l *latest) noteRoute(a *Action) {
	var name *string
	if a != nil {
		name = a.name()
	}
	if l.route.Load() != name {
		l.route.Store(name)
	}
	if (a == nil || a.Forward == nil) && l.endpoint.Load() != nil {
		l.endpoint.Store(nil)
	}
}

func (l *latest) noteEndpoint(e *upstream.Endpoint) {
	if name := e.Name(); l.endpoint.Load() != name {
		l.endpoint.Store(name)
	}
}

// name returns a copy of the name of the action's route, or nil if no route chose the
// action.
func (a *Action) name() *string {
	if a.Route == "" {
		return nil
	}
	if name := a.named.Load(); name != nil {
		return name
	}
	name := new(string)
	*name = a.Route
	a.named.CompareAndSwap(nil, name)
	return a.named.Load()
}

// Tunnels implements exchange's tunneler.
func (f *front1) Tunnels(protocol string, back net.Conn, e *upstream.Endpoint) {
	f.conn.latest.tunnel.Store(&tunnel{protocol, back, e})
}

// EachConnection calls f with every open connection. f may call only the method ID.
func (s *Server) EachConnection(f func(live.Entry)) { s.intake.EachConnection(f) }

// Describe implements intake's Owner.
func (c *conn) Describe(out *live.Connection) {
	out.Protocol = live.HTTP1
	out.Draining = out.Draining || c.closing()
	if !c.established.Load() {
		out.Client.Traffic, out.Client.TrafficKnown = socket.TrafficOf(c.sock)
		return
	}
	client := live.SideOf(c.sock)
	if c.secure != nil {
		client = live.SideOf(c.secure)
	}
	client.Announced = out.Client.Announced
	out.Client, out.State = client, live.Idle
	if c.http2Conn() != nil {
		out.Protocol = live.HTTP2
	}
	busy := false
	if out.Requests, busy = c.Work(); busy {
		out.State = live.Active
	}
	if name := c.latest.route.Load(); name != nil {
		out.Route = *name
	}
	if e := c.latest.endpoint.Load(); e != nil {
		out.Upstream, out.Endpoint = e.Upstream, e.Endpoint
	}
	if t := c.latest.tunnel.Load(); t != nil {
		out.Protocol, out.State, out.Upgrade = live.Tunnel, live.Active, t.protocol
		out.Upstream, out.Endpoint = t.endpoint.Name().Upstream, t.endpoint.Address()
		out.Server = t.endpoint.SideOf(t.back, upstream.Stream)
	}
}
