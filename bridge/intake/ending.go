package intake

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An ending is the scheduled end of a connection. Intake.mu guards it.
type ending struct {
	begun bool        // the connection accepts no further work
	timer *time.Timer // cuts the connection; nil: no end is scheduled
	at    time.Time   // when timer fires
}

func (e *ending) stop() {
	if e.timer != nil {
		e.timer.Stop()
	}
}

// EndWithin implements validity.Owner: it drains the connection, and cuts it when the
// grace period has passed.
func (c *Conn) EndWithin(grace time.Duration, cause *certs.VerifyError) { c.endWithin(grace, cause) }

// Close implements live.Entry.
func (c *Conn) Close(grace time.Duration) { c.endWithin(grace, live.ErrClosed) }

// endWithin ends the connection because of cause. If an end is already set, the
// connection keeps the earlier time and its cause.
func (c *Conn) endWithin(grace time.Duration, cause error) {
	if grace <= 0 {
		c.owner.Cut(cause)
		return
	}
	c.owner.Drain()
	at := time.Now().Add(grace)
	c.intake.mu.Lock()
	defer c.intake.mu.Unlock()
	c.end.begun = true
	if c.hasLeft || c.end.timer != nil && (!at.Before(c.end.at) || !c.end.timer.Stop()) {
		return
	}
	c.end.at = at
	c.end.timer = time.AfterFunc(grace, func() { c.owner.Cut(cause) })
}
