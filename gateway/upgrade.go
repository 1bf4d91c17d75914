package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/handover"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/livestate"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// upgrades runs at most one upgrade at a time, and no upgrade after a successful
// one.
type upgrades struct {
	timeout time.Duration
	running *sync.Mutex   // held by the upgrade in progress
	done    chan struct{} // closed when another process has taken over

	successor        string        // describes that process; set before done is closed
	stoppedAccepting chan struct{} // closed after done, when this process accepts no more clients

	stopped context.Context
	stop    context.CancelFunc // ends the upgrade in progress
}

func newUpgrades(o Options) upgrades {
	u := upgrades{timeout: cmp.Or(o.UpgradeTimeout, time.Minute), running: new(sync.Mutex), done: make(chan struct{}), stoppedAccepting: make(chan struct{})}
	u.stopped, u.stop = context.WithCancel(context.Background())
	return u
}

// over reports whether another process has taken over.
func (u *upgrades) over() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

// ErrReplaced says that another process has taken over.
var ErrReplaced = errors.New("another process has taken over already: this one drains its connections")

// Replaced returns a channel that is closed when another process has taken over.
func (g *Gateway) Replaced() <-chan struct{} { return g.upgrades.done }

// An Upgraded describes the new process that has taken over.
type Upgraded struct {
	PID     int
	Version string
}

// killTimeout limits how long a failed upgrade waits for the new process to end.
const killTimeout = 5 * time.Second

// Upgrade starts the program and hands everything over to it. Then Run drains and
// returns. If the new process fails, Upgrade kills it, and this process continues as
// before. This process accepts connections until the new process has taken over. Writes
// fail while the new process has the store.
func (g *Gateway) Upgrade(ctx context.Context, p handover.Program) (Upgraded, error) {
	if !g.upgrades.running.TryLock() {
		return Upgraded{}, errors.New("another upgrade is in progress: wait until it has ended")
	}
	defer g.upgrades.running.Unlock()
	switch {
	case g.upgrades.over():
		return Upgraded{}, ErrReplaced
	case os.Getpid() == 1:
		return Upgraded{}, errors.New("the gateway is process 1, and its container ends with it: replace the container")
	case !g.serving.Load():
		return Upgraded{}, errors.New("the gateway is starting or shutting down")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, g.upgrades.timeout, fmt.Errorf("the limit is %v (--upgrade-timeout)", g.upgrades.timeout))
	defer cancel()
	defer context.AfterFunc(g.upgrades.stopped, cancel)()
	g.log.Info("upgrade: starting a new process", "program", p.Path)
	s, err := handover.Start(p)
	if err != nil {
		g.log.Error("upgrade failed: this process continues", "program", p.Path, "error", err)
		return Upgraded{}, err
	}
	version, err := g.handOver(ctx, s)
	if err != nil {
		killing, stop := context.WithTimeout(context.Background(), killTimeout)
		s.Kill(killing)
		stop()
		g.log.Error("upgrade failed: this process continues", "program", p.Path, "pid", s.PID(), "error", err)
		return Upgraded{}, errors.Join(err, g.reclaimStore(g.upgrades.stopped))
	}
	g.log.Info("upgrade: the new process has taken over", "pid", s.PID(), "version", version)
	g.upgrades.successor = fmt.Sprintf("process %d has accepted the clients since the upgrade", s.PID())
	close(g.upgrades.done)
	// A client that connects after the upgrade must not reach the process that drains.
	select {
	case <-g.upgrades.stoppedAccepting:
	case <-g.upgrades.stopped.Done(): // this process stops instead
	}
	s.Release()
	return Upgraded{s.PID(), version}, nil
}

// handOver hands over to s. If it fails, the caller kills s and reclaims the store.
func (g *Gateway) handOver(ctx context.Context, s *handover.Successor) (version string, err error) {
	if version, err = s.Hello(ctx); err != nil {
		return "", err
	}
	if err := g.lendStore(); err != nil {
		return "", err
	}
	tickets, err := g.live.Load().TicketKeys().Encode()
	if err != nil {
		return "", err
	}
	if err := s.Pass(ctx, g.inherited, tickets); err != nil {
		return "", err
	}
	down, err := s.Ready(ctx)
	if err != nil {
		return "", err
	}
	if err := g.compareDown(down); err != nil {
		return "", err
	}
	// Take the state at the latest possible moment, because it changes all the
	// time.
	if err := s.Accept(ctx, takeState(s, g.live.Load(), g.listeners, g.log)); err != nil {
		return "", err
	}
	if err := s.Finish(ctx); err != nil {
		return "", err
	}
	// From here on nothing can fail.
	g.inherited.PassOn()
	g.manager.MainPID(s.PID())
	if err := g.giveStore(); err != nil {
		g.log.Warn("cannot remove the copy of the store that was made for the upgrade", "error", err)
	}
	g.writer.stop() // waiting writes fail
	return version, nil
}

// maxDownNamed bounds how many resources an error names.
const maxDownNamed = 3

// compareDown fails if a resource is up here and down in the new process.
func (g *Gateway) compareDown(there map[string]string) error {
	for resource := range g.down() {
		delete(there, resource)
	}
	if len(there) == 0 {
		return nil
	}
	var reasons []string
	for _, resource := range slices.Sorted(maps.Keys(there)) {
		reasons = append(reasons, resource+": "+there[resource])
	}
	more := ""
	if n := len(reasons) - maxDownNamed; n > 0 {
		reasons, more = reasons[:maxDownNamed], fmt.Sprintf("; and %d more", n)
	}
	return fmt.Errorf("resources that are up now would be down: %s%s", strings.Join(reasons, "; "), more)
}

// down returns the resources that are down, and the reasons.
func (g *Gateway) down() map[string]string {
	out := map[string]string{}
	for _, p := range g.live.Load().Problems() {
		out[p.Ref.String()] = p.Reason
	}
	for name, reason := range g.listeners.Down() {
		out[store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: name}.String()] = reason
	}
	return out
}

// A replacement is this process when it replaces a predecessor. Without a predecessor it
// does nothing.
type replacement struct {
	*handover.Predecessor
	hold     chan struct{} // closed when this process may accept connections; nil: at once
	onServed func()
}

func newReplacement(o Options) *replacement {
	r := &replacement{Predecessor: o.Predecessor, onServed: o.Serving}
	if r.Predecessor != nil {
		r.hold = make(chan struct{})
	}
	return r
}

func (r *replacement) serving() {
	if r.onServed != nil {
		r.onServed()
	}
	r.Serving()
}

// takeOver completes the upgrade that started this process. When it returns nil, this
// process owns the store and the service.
func (g *Gateway) takeOver(ctx context.Context) error {
	r := g.replaces
	if r.Predecessor == nil {
		return nil
	}
	state, err := r.Ready(ctx, g.down())
	if err != nil {
		return err
	}
	adoptState(state, g.live.Load(), g.listeners, g.log)
	close(r.hold)
	if err := r.Accepting(ctx); err != nil {
		return err
	}
	g.inherited.Own()
	return nil
}

// takeState returns the live state for s. An upgrade without it is better than none.
func takeState(s *handover.Successor, live *snapshot.Snapshot, set *listeners.Set, log hclog.Logger) []byte {
	if !s.ReadsLive() {
		return nil
	}
	state, err := livestate.Take(live, set)
	if err != nil {
		log.Warn("upgrade: the live state is not passed on", "error", err)
	}
	return state
}

// adoptState applies the live state of the previous process. A state that this version
// cannot read is no reason to fail the upgrade.
func adoptState(state []byte, live *snapshot.Snapshot, set *listeners.Set, log hclog.Logger) {
	if len(state) == 0 {
		return
	}
	adopted, err := livestate.Adopt(state, live, set)
	if err != nil {
		log.Warn("upgrade: the live state of the previous process is not used", "error", err)
		return
	}
	log.Info("upgrade: continuing from the live state of the previous process", "upstreams", adopted.Upstreams, "endpoints", adopted.Endpoints,
		"listeners", adopted.Listeners, "dropped", strings.Join(adopted.Dropped, ", "))
}
