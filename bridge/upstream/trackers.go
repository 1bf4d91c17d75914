package upstream

import (
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// Trackers are the Trackers of all upstreams that have connections, including upstreams
// that were deleted. The zero value is empty; its methods may be called concurrently.
type Trackers struct {
	// Numbers numbers the connections. It is set before the first Tracker is made, and may
	// be nil.
	Numbers *live.Numbers

	mu   sync.Mutex
	open map[*Tracker]struct{}
}

func (a *Trackers) add(t *Tracker) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = make(map[*Tracker]struct{})
	}
	a.open[t] = struct{}{}
}

func (a *Trackers) remove(t *Tracker) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, t)
}

// EachConnection calls f with the connections to upstreams that do not belong to a single
// client: pooled, warm and connecting ones. f may only call the method ID.
func (a *Trackers) EachConnection(f func(live.Entry)) {
	a.mu.Lock()
	all := make([]*Tracker, 0, len(a.open))
	for t := range a.open {
		all = append(all, t)
	}
	a.mu.Unlock()
	for _, t := range all {
		t.eachUnpaired(f)
	}
}

// eachUnpaired calls f with the connections that are not spliced with a client's
// connection.
func (t *Tracker) eachUnpaired(f func(live.Entry)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, connections := range t.open {
		for c := range connections {
			if !socket.IsHandedOver(c.sock) {
				f(c)
			}
		}
	}
}

// number returns the number of a new connection.
func (t *Tracker) number() uint64 {
	if t == nil || t.all == nil {
		return 0
	}
	return t.all.Numbers.Next()
}

// ID implements live.Entry.
func (c *tracked) ID() uint64 { return c.id }

// Describe implements live.Entry.
func (c *tracked) Describe(out *live.Connection) {
	*out = live.Connection{
		ID: c.id, Began: c.began, State: live.Connecting,
		Upstream: c.upstream.Name(), Endpoint: c.dialer.options.Address,
		Server: live.Side{Local: c.sock.LocalAddr(), Remote: c.sock.RemoteAddr()},
	}
	c.tracker.mu.Lock()
	conn := c.conn
	out.Draining = c.cut != nil || c.Ending()
	c.tracker.mu.Unlock()
	if conn != nil {
		out.Server, out.State = live.SideOf(conn), live.Active
	} else {
		out.Server.Traffic, out.Server.TrafficKnown = socket.TrafficOf(c.sock)
	}
	out.Server.Certificate = c.fingerprint
	if c.holder == nil {
		return
	}
	out.Protocol = c.holder.Protocol()
	requests, held := c.holder.Work()
	if conn != nil && held {
		if out.Requests = requests; requests == 0 {
			out.State = live.Idle
		}
	}
}
