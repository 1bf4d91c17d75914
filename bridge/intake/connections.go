package intake

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
)

// Connections returns the open connections.
func (i *Intake) Connections() []live.Entry {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := make([]live.Entry, 0, len(i.conns))
	for c := range i.conns {
		out = append(out, c)
	}
	return out
}

// ID implements live.Entry.
func (c *Conn) ID() uint64 { return c.id }

// Describe implements live.Entry.
func (c *Conn) Describe() live.Connection {
	out := live.Connection{
		ID: c.id, Began: time.Unix(0, c.began), Revision: c.Revision, Listener: c.intake.options.Listener,
		Client: live.Side{Local: c.raw.LocalAddr(), Remote: c.raw.RemoteAddr()},
	}
	c.intake.mu.Lock()
	out.Draining = c.end.begun || c.Member.Ending()
	if c.announced {
		out.Address = c.Addr
		if c.Announced.Source != out.Client.Remote {
			out.Client.Announced = c.Announced.Source
		}
	}
	c.intake.mu.Unlock()
	c.owner.Describe(&out)
	return out
}
