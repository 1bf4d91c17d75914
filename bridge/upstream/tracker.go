package upstream

import (
	"net"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Tracker tracks the open connections of one upstream by client certificate.
// It outlives the Upstreams of single revisions, which share it. So connections
// from before a rotation are still counted, can be drained, and end when the
// endpoint no longer verifies. All methods may be called concurrently.
type Tracker struct {
	peers *validity.Set // connections whose endpoint was verified
	all   *Trackers     // may be nil

	mu   sync.Mutex
	open map[string]map[*tracked]struct{} // by fingerprint
}

// NewTracker returns an empty Tracker that verifies its connections against the system's
// clock and reports nothing.
func NewTracker() *Tracker { return NewTrackerOf(validity.New(validity.Options{}), nil) }

// NewTrackerOf returns an empty Tracker whose verified connections are members of
// peers. It is a member of all, which may be nil, while it has connections.
func NewTrackerOf(peers *validity.Set, all *Trackers) *Tracker {
	return &Tracker{peers: peers, all: all, open: make(map[string]map[*tracked]struct{})}
}

// Peers returns the connections whose endpoint was verified. Its policy is that of
// the upstream's current revision.
func (t *Tracker) Peers() *validity.Set { return t.peers }

// A Holder keeps a connection for reuse. Its methods may be called from any goroutine,
// and before the connection is made.
type Holder interface {
	// Retire makes the Holder give the connection no more work and close it when
	// its current work is done. It may be called more than once.
	Retire()

	// Work returns how many requests use the connection. held is false once the
	// connection carries a stream and is no longer the Holder's.
	Work() (requests int, held bool)

	// Protocol returns the protocol that the connection carries.
	Protocol() live.Protocol
}

// A tracked is an open connection.
type tracked struct {
	validity.Member
	tracker     *Tracker  // may be nil
	upstream    *Upstream // the Upstream that dialed it
	id          uint64
	began       time.Time
	dialer      *dialer
	fingerprint string // fingerprint of the gateway's certificate; "" without one
	sock        *socket.Socket
	holder      Holder // nil: the connection carries one stream to its end

	// Guarded by the Tracker's mutex.
	conn net.Conn    // sock, or TLS on top of it; nil until it can be used
	cut  *time.Timer // nil: the connection is not being drained
	end  time.Time   // when cut fires
}

// Counts returns the number of open connections, including those still in the
// handshake, by the SHA-256 fingerprint of their client certificate; "" counts
// connections without one. Fingerprints without connections are left out.
func (t *Tracker) Counts() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := make(map[string]int, len(t.open))
	for fingerprint, connections := range t.open {
		counts[fingerprint] = len(connections)
	}
	return counts
}

// Drain drains the open connections that use the given client certificate ("":
// without one) or, with all, every connection. It returns their number without
// waiting.
//
// It notifies their owners at once that the connections must carry no further
// work: an HTTP connection gets no further request and closes after its
// current responses. After period, Drain closes the remaining connections. A
// connection that is drained again keeps the earlier deadline.
func (t *Tracker) Drain(fingerprint string, all bool, period time.Duration) int {
	drained := t.drain(fingerprint, all, period)
	for _, c := range drained {
		if c.holder != nil {
			c.holder.Retire()
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
			c.cutLocked(end)
		}
	}
	return drained
}

// cutLocked schedules c's close at end, unless an earlier one is scheduled. The
// Tracker's mu is held.
func (c *tracked) cutLocked(end time.Time) {
	if c.cut != nil && !c.cut.Stop() {
		return // the timer has fired and is closing the connection
	}
	if c.cut == nil || end.Before(c.end) {
		c.end = end
	}
	c.cut = time.AfterFunc(time.Until(c.end), c.sock.Reset)
}

// verified makes c, whose handshake has succeeded, a member of the Tracker's
// peers until it is closed.
func (t *Tracker) verified(c *tracked, peer *certs.Peer) {
	if t == nil {
		return
	}
	c.sock.SetGuard(&c.Member)
	t.peers.Add(&c.Member, peer, c)
	c.sock.OnClose(func() { t.peers.Remove(&c.Member) })
}

// ready records that conn, which is c's Socket or TLS on top of it, can be used.
func (t *Tracker) ready(c *tracked, conn net.Conn) net.Conn {
	if t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		c.conn = conn
	}
	return conn
}

// EndWithin implements validity.Owner. An idle connection is closed at once.
func (c *tracked) EndWithin(grace time.Duration, _ *certs.VerifyError) { c.Close(grace) }

// Close implements live.Entry. An idle connection is closed at once.
func (c *tracked) Close(grace time.Duration) {
	if c.holder != nil {
		c.holder.Retire()
	}
	t := c.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, open := t.open[c.fingerprint][c]; open {
		c.cutLocked(time.Now().Add(grace))
	}
}

// Tally counts the connections that end when p takes effect and replaced, which may be
// nil, is retired. Streams continue when their Upstream is replaced.
func (t *Tracker) Tally(replaced *Upstream, p *validity.Policy) (total validity.Tally) {
	failing := make(map[*tracked]time.Duration)
	t.peers.Forecast(p, func(o validity.Owner, grace time.Duration) { failing[o.(*tracked)] = grace })
	for _, c := range t.notEnding() {
		grace, fails := failing[c]
		requests, held := 0, false
		if c.holder != nil {
			requests, held = c.holder.Work()
		}
		if fails || held && c.upstream == replaced {
			total.Add(held && requests == 0 || fails && grace == 0, requests)
		}
	}
	return total
}

// notEnding returns the connections that are not being drained.
func (t *Tracker) notEnding() []*tracked {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*tracked
	for _, connections := range t.open {
		for c := range connections {
			if c.cut == nil && !c.Ending() {
				out = append(out, c)
			}
		}
	}
	return out
}

// add tracks c. A nil Tracker does nothing.
func (t *Tracker) add(c *tracked) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) == 0 {
		t.all.add(t)
	}
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
	if len(t.open) == 0 {
		t.all.remove(t)
	}
}
