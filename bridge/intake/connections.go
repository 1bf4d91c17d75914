package intake

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
)

// EachConnection calls f with every open connection. It holds the Intake's lock
// meanwhile, so f must be brief, and must not call methods of the Intake or of the entry
// other than ID.
func (i *Intake) EachConnection(f func(live.Entry)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for c := range i.conns {
		f(c)
	}
}

// ID implements live.Entry.
func (c *Conn) ID() uint64 { return c.id }

// Describe implements live.Entry.
func (c *Conn) Describe(out *live.Connection) {
	*out = live.Connection{
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
	c.owner.Describe(out)
}
