package gateway

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

const (
	// resumeEvery is how often a listener that has paused looks whether it can
	// go on.
	resumeEvery = 10 * time.Millisecond

	// pauseLogEvery is the least time between two log entries about pauses.
	pauseLogEvery = 10 * time.Second
)

// descriptors is the process's file descriptors, and the listeners that wait for
// some.
type descriptors struct {
	*socket.Descriptors
	own int // in use before any listener was bound
	log hclog.Logger

	paused atomic.Int64  // listeners now
	pauses atomic.Uint64 // ever

	mu     sync.Mutex
	logged time.Time
}

func newDescriptors(log hclog.Logger) *descriptors {
	return &descriptors{Descriptors: socket.NewDescriptors(descriptorLimit), log: log}
}

// settle notes what is in use for good. It is called before the first listener
// is bound.
func (d *descriptors) settle() {
	d.own = openDescriptors()
	d.SetOthers(d.own)
}

// setListeners says how many listeners are bound.
func (d *descriptors) setListeners(n int) { d.SetOthers(d.own + n) }

// await waits until a client may be accepted from l. It returns false if l is
// over before that.
func (d *descriptors) await(l *lease) bool {
	if d.Room() {
		return true
	}
	d.pauses.Add(1)
	d.paused.Add(1)
	defer d.paused.Add(-1)
	d.tell(l.Addr())
	tick := time.NewTicker(resumeEvery)
	defer tick.Stop()
	for !d.Room() {
		select {
		case <-tick.C:
			if l.passed.Load() {
				return false
			}
		case <-l.closed:
			return false
		}
	}
	return true
}

// tell logs that there is no room, now and then.
func (d *descriptors) tell(listener net.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.logged) >= pauseLogEvery {
		d.logged = now
		limit, clients, upstreams := d.Usage()
		d.log.Warn("no file descriptors for further clients: they wait until others have left",
			"listener", listener.String(), "limit", limit, "clients", clients, "upstreams", upstreams)
	}
}
