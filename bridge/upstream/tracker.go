package upstream

import (
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A Tracker knows the open connections of one upstream by the client
// certificate they are made with. It outlives the Upstreams of single
// revisions, which share it, so that connections made before a rotation are
// still counted and can be drained. All methods may be called concurrently.
type Tracker struct {
	mu   sync.Mutex
	open map[string]map[*tracked]struct{} // by fingerprint
}

// NewTracker returns a Tracker that knows of no connection.
func NewTracker() *Tracker {
	return &Tracker{open: make(map[string]map[*tracked]struct{})}
}

// A tracked is an open connection.
type tracked struct {
	fingerprint string // of our certificate; "" none
	sock        *socket.Socket
	retire      func() // nil: its owner need not be told

	// Guarded by the Tracker's mutex.
	cut *time.Timer // nil: not being drained
	end time.Time   // when cut fires
}

// Counts returns how many connections are open, those still shaking hands
// included, by the SHA-256 fingerprint of the client certificate they are made
// with; "" counts those made without. What is not in use is left out.
func (t *Tracker) Counts() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := make(map[string]int, len(t.open))
	for fingerprint, connections := range t.open {
		counts[fingerprint] = len(connections)
	}
	return counts
}

// Drain lets go of the connections open now that were made with the client
// certificate of the fingerprint given ("": with none), or, with all, of every
// one. It returns how many there are, and does not wait.
//
// Their owners are told at once that they are to carry nothing more: HTTP
// connections get no further request, and are closed when those they have are
// answered. What is still open when period has passed is cut off. A connection
// that is drained again keeps the earlier end.
func (t *Tracker) Drain(fingerprint string, all bool, period time.Duration) int {
	drained := t.drain(fingerprint, all, period)
	for _, c := range drained {
		if c.retire != nil {
			c.retire()
		}
	}
	return len(drained)
}

func (t *Tracker) drain(fingerprint string, all bool, period time.Duration) []*tracked {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := time.Now().Add(period)
	var drained []*tracked
	for of, connections := range t.open {
		if !all && of != fingerprint {
			continue
		}
		for c := range connections {
			drained = append(drained, c)
			if c.cut != nil && !c.cut.Stop() {
				continue // it is being cut this moment
			}
			if c.cut == nil || end.Before(c.end) {
				c.end = end
			}
			c.cut = time.AfterFunc(time.Until(c.end), c.sock.Reset)
		}
	}
	return drained
}

// add begins to track c. A nil Tracker tracks nothing.
func (t *Tracker) add(c *tracked) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	same := t.open[c.fingerprint]
	if same == nil {
		same = make(map[*tracked]struct{})
		t.open[c.fingerprint] = same
	}
	same[c] = struct{}{}
}

// remove forgets c, which is closed.
func (t *Tracker) remove(c *tracked) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.cut != nil {
		c.cut.Stop()
	}
	same := t.open[c.fingerprint]
	if delete(same, c); len(same) == 0 {
		delete(t.open, c.fingerprint)
	}
}
