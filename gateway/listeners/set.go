package listeners

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/gateway/handover"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Options configure a Set. Live and Descriptors are required.
type Options struct {
	// Live returns the live snapshot. It is called once per connection or request, and
	// must be fast.
	Live func() *snapshot.Snapshot

	Descriptors *Descriptors

	// Sockets passes sockets between processes. Nil: every socket is new, and is
	// closed with the process.
	Sockets *handover.Sockets

	// Hold, if not nil, is closed when the listeners may accept connections: another
	// process serves the sockets until then.
	Hold <-chan struct{}

	// Drain bounds how long the connections of a removed listener stay open. 0: 30s.
	Drain time.Duration

	// Removing is called when a removed listener has closed its last connection, before
	// it leaves the set. The function that it returns is called afterward. Nil: not
	// called.
	Removing func(*Running) (removed func())

	// Unverified receives the findings about clients of a listener that no longer
	// verify. It must not block. It may be nil.
	Unverified func(listener string, f validity.Finding)

	// Now returns the time at which open connections are verified. Nil means time.Now.
	Now func() time.Time

	Numbers   *live.Numbers     // assigns numbers to connections; may be nil
	AccessLog *accesslog.Logger // nil: no access log
	Logger    hclog.Logger      // nil discards
}

// A Set holds the listeners of a gateway. Only one goroutine at a time may call Prepare
// and Commit; the other methods may be called concurrently.
type Set struct {
	o       Options
	splices *splice.Engine // carries the connections of all listeners

	mu       sync.Mutex
	running  map[string]*Running
	draining map[*Running]struct{}
	down     map[string]string   // why a socket is not bound or not served, by name
	ended    map[string]*Running // the listeners that StopAccepting closed; nil before
	ending   Ending

	served *snapshot.Snapshot // the snapshot of the last Commit; belongs to the caller of Prepare and Commit

	drains sync.WaitGroup // one for each entry of draining
	serves sync.WaitGroup // one for each Serve
}

// A Running is a bound listener. One of TCP and HTTP is set.
type Running struct {
	Name string
	TCP  *l4.Server
	HTTP *l7.Server

	protocol   adminv1.Protocol
	network    string
	address    string // the configured address, to detect a change
	configured string // the address in the resource
	unix       unixsocket.Options
	socket     *lease
	remember   func() // keeps the current table for the drain
}

// A server is the interface that *l4.Server and *l7.Server share.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Revalidate()
	Peers() *validity.Set
	Tally(*validity.Policy) validity.Tally
	EachConnection(func(live.Entry))
	Limiter() *limit.Limiter
}

// Peers returns the clients of the listener's open connections.
func (r *Running) Peers() *validity.Set { return r.server().Peers() }

func (r *Running) server() server {
	if r.HTTP != nil {
		return r.HTTP
	}
	return r.TCP
}

// New returns a set without listeners. The caller must call Shutdown.
func New(o Options) (*Set, error) {
	o.Drain = cmp.Or(o.Drain, 30*time.Second)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	splices, err := splice.New(0)
	if err != nil {
		return nil, err
	}
	return &Set{
		o: o, splices: splices,
		running:  map[string]*Running{},
		draining: map[*Running]struct{}{},
		down:     map[string]string{},
		served:   new(snapshot.Snapshot),
	}, nil
}

func (s *Set) serve(r *Running) {
	s.serves.Go(func() {
		err := r.server().Serve(r.socket)
		r.socket.finish()
		if r.socket.isRevoked() || errors.Is(err, l4.ErrServerClosed) || errors.Is(err, l7.ErrServerClosed) {
			return
		}
		s.o.Logger.Error("listener failed", "listener", r.Name, "error", err)
	})
}

// retire drains a listener that no longer accepts.
func (s *Set) retire(r *Running) {
	s.draining[r] = struct{}{}
	s.drains.Go(func() {
		<-r.socket.ended // the server has received every accepted connection
		ctx, cancel := context.WithTimeout(context.Background(), s.o.Drain)
		defer cancel()
		if err := r.server().Shutdown(ctx); err != nil {
			s.o.Logger.Warn("connections closed at the end of the drain timeout", "listener", r.Name, "error", err)
		}
		removed := func() {}
		if s.o.Removing != nil {
			removed = s.o.Removing(r)
		}
		s.mu.Lock()
		delete(s.draining, r)
		s.countSockets()
		s.mu.Unlock()
		removed()
		s.o.Logger.Info("listener removed", "listener", r.Name)
	})
}

// countSockets reserves the descriptors of the listeners, so that traffic cannot use
// them. The caller holds s.mu.
func (s *Set) countSockets() { s.o.Descriptors.setListeners(len(s.running)) }

// An Ending describes why a set stops accepting.
type Ending struct {
	Reason     string // for Status; empty: the gateway is shutting down
	HandedOver bool   // another process has the sockets
}

// StopAccepting closes the sockets of every listener and drains the listeners in the
// background. Shutdown waits for them. Later calls have no effect.
func (s *Set) StopAccepting(e Ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return
	}
	e.Reason = cmp.Or(e.Reason, "the gateway is shutting down")
	s.ended, s.ending = maps.Clone(s.running), e
	for name, r := range s.running {
		delete(s.running, name)
		r.socket.Close()
		s.retire(r)
	}
}

// Shutdown calls StopAccepting, if that has not been called, and waits for all goroutines of
// the listeners.
func (s *Set) Shutdown() {
	s.StopAccepting(Ending{})
	s.drains.Wait()
	s.serves.Wait()
	s.splices.Close()
}

// Status returns the state of every listener of the snapshot and of every draining
// listener.
func (s *Set) Status(snap *snapshot.Snapshot) []*adminv1.ListenerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*adminv1.ListenerStatus
	for _, want := range snap.Listeners() {
		if r := s.running[want.Name]; r != nil {
			up := r.status(adminv1.ListenerState_LISTENER_STATE_UP)
			for _, p := range want.Populations() {
				up.ClientPopulations = append(up.ClientPopulations, &adminv1.ClientPopulation{Hosts: p.Hosts, VerifiedBy: snapshot.AnchorUses(p.VerifiedBy())})
			}
			out = append(out, up)
			continue
		}
		if r := s.ended[want.Name]; r != nil {
			out = append(out, s.endedStatus(r))
			continue
		}
		out = append(out, &adminv1.ListenerStatus{
			Name: want.Name, State: adminv1.ListenerState_LISTENER_STATE_DOWN, Address: want.Configured, Protocol: want.Protocol,
			Reason: cmp.Or(want.Down, s.down[want.Name]),
		})
	}
	var draining []*adminv1.ListenerStatus
	for r := range s.draining {
		if s.ended[r.Name] == r {
			continue // listed above
		}
		draining = append(draining, r.status(adminv1.ListenerState_LISTENER_STATE_DRAINING))
	}
	slices.SortFunc(draining, func(a, b *adminv1.ListenerStatus) int { return strings.Compare(a.Name, b.Name) })
	return append(out, draining...)
}

// endedStatus returns the state of a listener that StopAccepting closed.
func (s *Set) endedStatus(r *Running) *adminv1.ListenerStatus {
	state := adminv1.ListenerState_LISTENER_STATE_DRAINING
	if s.ending.HandedOver {
		state = adminv1.ListenerState_LISTENER_STATE_HANDED_OVER
	}
	out := r.status(state)
	out.Reason = s.ending.Reason
	return out
}

func (r *Running) status(state adminv1.ListenerState) *adminv1.ListenerStatus {
	s := &adminv1.ListenerStatus{
		Name: r.Name, State: state, Address: r.configured, BoundAddress: AddressText(r.socket.Addr()), Protocol: r.protocol,
	}
	if r.HTTP != nil {
		stats := r.HTTP.Stats()
		s.Connections, s.Accepted = int64(stats.Open), int64(stats.Accepted)
		s.HandshakeFailures = snapshot.FailureCounts(stats.HandshakeFailures)
		s.BytesReceived, s.BytesSent = int64(stats.BytesFromClient), int64(stats.BytesToClient)
		for code, n := range stats.Requests {
			s.Requests += int64(n)
			if code >= 500 {
				s.ServerErrors += int64(n)
			}
		}
	} else {
		stats := r.TCP.Stats()
		s.Connections, s.Accepted = int64(stats.Open), int64(stats.Accepted)
		s.HandshakeFailures = snapshot.FailureCounts(stats.HandshakeFailures)
		s.ConnectionsLost = int64(stats.NoUpstream + stats.DialFailures)
		s.BytesReceived, s.BytesSent = int64(stats.BytesToUpstream), int64(stats.BytesToClient)
	}
	return s
}

// AddressText returns an address in the API's form.
func AddressText(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}

// Each calls f for every bound listener, including draining ones.
func (s *Set) Each(f func(*Running)) {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.running))
	all = slices.AppendSeq(all, maps.Keys(s.draining))
	s.mu.Unlock()
	for _, r := range all {
		f(r)
	}
}

// EachConnection calls f with the open connections of every listener, including draining
// ones. f may call only the method ID.
func (s *Set) EachConnection(f func(live.Entry)) {
	s.Each(func(r *Running) { r.server().EachConnection(f) })
}

// EachLimiter calls f for every listener that is not draining.
func (s *Set) EachLimiter(f func(listener string, p adminv1.Protocol, l *limit.Limiter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.running)) {
		r := s.running[name]
		f(name, r.protocol, r.server().Limiter())
	}
}

// Draining returns how many removed listeners still have connections.
func (s *Set) Draining() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.draining)
}

// Down returns why sockets are not bound, by the names of their listeners.
func (s *Set) Down() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.down)
}

// DownReason returns why the listener's socket is not bound, or "" if it is bound.
func (s *Set) DownReason(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down[name]
}
