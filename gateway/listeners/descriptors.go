package listeners

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

// Descriptors shares out the process's file descriptors, and has listeners wait
// while they are short.
type Descriptors struct {
	*socket.Descriptors
	own int // in use before any listener was bound
	log hclog.Logger

	paused atomic.Int64  // listeners now
	pauses atomic.Uint64 // ever

	mu     sync.Mutex
	logged time.Time
}

// NewDescriptors returns the descriptors of this process.
func NewDescriptors(log hclog.Logger) *Descriptors {
	return &Descriptors{Descriptors: socket.NewDescriptors(descriptorLimit), log: log}
}

// Settle notes what is in use for good, and sets aside what the gateway's own
// servers may take. It is called before the first listener is bound.
func (d *Descriptors) Settle(aside int) {
	d.own = openDescriptors() + aside
	d.SetOthers(d.own)
}

// setListeners says how many listeners are bound.
func (d *Descriptors) setListeners(n int) { d.SetOthers(d.own + n) }

// Paused returns how many listeners wait for descriptors now, and how often one
// has had to.
func (d *Descriptors) Paused() (now int, ever uint64) {
	return int(d.paused.Load()), d.pauses.Load()
}

// await waits until a client may be accepted from l. It returns false if the
// lease ends before that.
func (d *Descriptors) await(l *lease) bool {
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
		case <-l.over:
			return false
		}
	}
	return true
}

// tell logs that there is no room, at most once in pauseLogEvery.
func (d *Descriptors) tell(listener net.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.logged) >= pauseLogEvery {
		d.logged = now
		limit, clients, upstreams := d.Usage()
		d.log.Warn("no file descriptors for further clients: they wait until others have left",
			"listener", listener.String(), "limit", limit, "clients", clients, "upstreams", upstreams)
	}
}
