package intake

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
)

// Tally counts the connections that end if Shutdown is called.
func (i *Intake) Tally() (t validity.Tally) {
	for _, c := range i.open() {
		requests, busy := c.owner.Work()
		t.Add(!busy, requests)
	}
	return t
}

// TallyUnder counts the connections that end if a policy is put in force.
func (i *Intake) TallyUnder(p *validity.Policy) (t validity.Tally) {
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
		if !c.Member.Ending() && !c.refused.Load() {
			out = append(out, c)
		}
	}
	return out
}
