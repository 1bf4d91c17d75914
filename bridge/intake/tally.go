package intake

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
)

// Tally counts the connections that would end if a policy took effect, or on Shutdown
// if the policy is nil.
func (i *Intake) Tally(p *validity.Policy) (t validity.Tally) {
	if p == nil {
		for _, c := range i.open() {
			requests, busy := c.owner.Work()
			t.Add(!busy, requests)
		}
		return t
	}
	i.peers.Forecast(p, func(o validity.Owner, grace time.Duration) {
		requests, busy := o.(*Conn).owner.Work()
		t.Add(!busy || grace == 0, requests)
	})
	return t
}

// open returns the connections that are not ending.
func (i *Intake) open() []*Conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []*Conn
	for c := range i.conns {
		if !c.Member.Ending() && !c.end.begun && !c.refused.Load() {
			out = append(out, c)
		}
	}
	return out
}
