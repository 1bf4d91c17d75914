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
	// resumeEvery is how often a paused listener checks whether it can resume.
	resumeEvery = 10 * time.Millisecond

	// pauseLogEvery is the minimum time between two log lines about pauses.
	pauseLogEvery = 10 * time.Second
)

// Descriptors allocates the process's file descriptors to clients and upstreams, and
// pauses listeners while descriptors are short.
type Descriptors struct {
	*socket.Descriptors
	reserved int // descriptors in use or reserved before any listener was bound
	log      hclog.Logger

	paused atomic.Int64  // currently paused listeners
	pauses atomic.Uint64 // pauses since the start

	mu     sync.Mutex
	logged time.Time
}

// NewDescriptors returns the descriptors of this process.
func NewDescriptors(log hclog.Logger) *Descriptors {
	return &Descriptors{Descriptors: socket.NewDescriptors(descriptorLimit), log: log}
}

// Reserve records the descriptors that are in use permanently, and reserves more for the
// gateway's own servers. It is called before the first listener is bound.
func (d *Descriptors) Reserve(more int) {
	d.reserved = openDescriptors() + more
	d.SetOthers(d.reserved)
}

// setListeners sets the number of bound listeners.
func (d *Descriptors) setListeners(n int) { d.SetOthers(d.reserved + n) }

// Paused returns how many listeners are paused now, and how often listeners have
// paused.
func (d *Descriptors) Paused() (now int, total uint64) {
	return int(d.paused.Load()), d.pauses.Load()
}

// await waits until l may accept a client. It returns false if the lease ends first.
func (d *Descriptors) await(l *lease) bool {
	if d.Room() {
		return true
	}
	d.pauses.Add(1)
	d.paused.Add(1)
	defer d.paused.Add(-1)
	d.logPause(l.Addr())
	tick := time.NewTicker(resumeEvery)
	defer tick.Stop()
	for !d.Room() {
		select {
		case <-tick.C:
		case <-l.revoked:
			return false
		}
	}
	return true
}

// logPause logs that a listener paused, at most once in pauseLogEvery.
func (d *Descriptors) logPause(listener net.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.logged) >= pauseLogEvery {
		d.logged = now
		limit, clients, upstreams := d.Usage()
		d.log.Warn("no file descriptors for further clients: they wait until other connections close",
			"listener", listener.String(), "limit", limit, "clients", clients, "upstreams", upstreams)
	}
}
