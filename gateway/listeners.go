package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// listeners owns the sockets that clients connect to, and the servers on them.
// prepare and commit belong to the one writer; the rest may be called
// concurrently.
type listeners struct {
	live  *atomic.Pointer[snapshot.Snapshot]
	drain time.Duration // for the connections of what is removed
	log   hclog.Logger

	splices     *splice.Engine // of all listeners
	descriptors *descriptors
	accessLog   *accesslog.Logger // nil: there is none

	mu       sync.Mutex
	running  map[string]*running
	draining map[*running]struct{}
	down     map[string]string // why a socket could not be bound

	drains sync.WaitGroup // one for each entry of draining
	serves sync.WaitGroup // one for each Serve
}

// running is a listener that is bound.
type running struct {
	name      string
	protocol  adminv1.Protocol
	network   string
	address   string // as asked for, which tells whether it has moved
	configure string // as the resource has it
	socket    *lease
	from      *running // whose socket it is until commit; nil: its own
	remember  func()   // makes its present table the one it drains by
	server    server
	tcp       *l4.Server // one of the two is server
	http      *l7.Server
}

type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

func newListeners(live *atomic.Pointer[snapshot.Snapshot], drain time.Duration, d *descriptors, access *accesslog.Logger, log hclog.Logger) (*listeners, error) {
	splices, err := splice.New(0)
	if err != nil {
		return nil, err
	}
	return &listeners{
		live: live, drain: drain, log: log, splices: splices, descriptors: d, accessLog: access,
		running:  map[string]*running{},
		draining: map[*running]struct{}{},
		down:     map[string]string{},
	}, nil
}

// prepared is a set of bound sockets, on which nothing is served yet.
type prepared struct {
	bound []*running
	kept  map[string]bool
	down  map[string]string
}

// discard closes the sockets.
func (p *prepared) discard() {
	for _, r := range p.bound {
		if r.from == nil {
			r.socket.Close()
		}
	}
}

// prepare binds what next needs and is not bound. A socket that cannot be bound
// is reported through fault, unless tolerate says that its listener may be
// down. On a fault the caller discards what is returned.
func (l *listeners) prepare(next *snapshot.Snapshot, tolerate func(name string) bool, fault func(name, problem string)) *prepared {
	p := &prepared{kept: map[string]bool{}, down: map[string]string{}}
	var todo []*snapshot.Listener
	for _, want := range next.Listeners() {
		if want.Down != "" {
			continue
		}
		if have := l.running[want.Name]; have != nil && have.serves(want) {
			p.kept[want.Name] = true
			continue
		}
		todo = append(todo, want)
	}
	for _, have := range l.running {
		if !p.kept[have.name] {
			have.remember()
		}
	}
	for _, want := range todo {
		socket, from, err := l.bind(want, p.kept)
		if err != nil {
			problem := fmt.Sprintf("%s cannot be listened on: %v", want.Configured, bindCause(err))
			if tolerate(want.Name) {
				p.down[want.Name] = problem
			} else {
				fault(want.Name, problem)
			}
			continue
		}
		r := l.build(want, socket)
		r.from = from
		p.bound = append(p.bound, r)
	}
	return p
}

func (r *running) serves(want *snapshot.Listener) bool {
	return r.protocol == want.Protocol && r.holds(want)
}

// holds reports whether the socket is bound to the address, be it that the
// kernel chose the port.
func (r *running) holds(want *snapshot.Listener) bool {
	return r.network == want.Network && (r.address == want.Address || r.socket.Addr().String() == want.Address)
}

// bind returns a socket for the listener. One that is bound already, for a
// listener that next does not keep, is passed on by that one, which is returned
// too: no client is refused in between.
func (l *listeners) bind(want *snapshot.Listener, kept map[string]bool) (socket *lease, from *running, err error) {
	for _, have := range l.running {
		if !kept[have.name] && have.holds(want) && !strings.HasSuffix(want.Address, ":0") {
			return have.socket.next(), have, nil
		}
	}
	if want.Network == "unix" {
		if err := removeStale(want.Address); err != nil {
			return nil, nil, err
		}
	}
	bound, err := net.Listen(want.Network, want.Address)
	if err != nil {
		return nil, nil, err
	}
	return newLease(bound, l.descriptors), nil, nil
}

// removeStale removes the socket file of a process that is dead. Anything else
// is left, for bind to fail on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return nil
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return nil
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil
}

// bindCause returns what the kernel said.
func bindCause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func (l *listeners) build(want *snapshot.Listener, socket *lease) *running {
	r := &running{name: want.Name, protocol: want.Protocol, network: want.Network, address: want.Address, configure: want.Configured, socket: socket}
	if want.Protocol == adminv1.Protocol_PROTOCOL_HTTP {
		table := &table[l7.Table]{now: func() *l7.Table { return l.live.Load().HTTP(want.Name) }}
		r.http = l7.New(l7.Options{
			Listener: want.Name, Table: table.get, Splices: l.splices, Descriptors: l.descriptors.Descriptors, AccessLog: l.accessLog, Logger: l.log,
		})
		r.server, r.remember = r.http, table.remember
		return r
	}
	table := &table[l4.Table]{now: func() *l4.Table { return l.live.Load().TCP(want.Name) }}
	r.tcp = l4.New(l4.Options{
		Listener: want.Name, Table: table.get, Splices: l.splices, Descriptors: l.descriptors.Descriptors, AccessLog: l.accessLog, Logger: l.log,
	})
	r.server, r.remember = r.tcp, table.remember
	return r
}

// A table is what a listener serves by: what is live under its name and, once
// nothing is, what it remembers. A connection accepted in the moment of the
// change, and requests on connections that drain, are served by that.
type table[T any] struct {
	now  func() *T
	last atomic.Pointer[T]
}

func (t *table[T]) remember() { t.last.Store(t.now()) }

func (t *table[T]) get() *T {
	if now := t.now(); now != nil {
		return now
	}
	return t.last.Load()
}

// commit serves what was prepared, and drains what is no longer wanted. It must
// come after the snapshot that was prepared for is live.
func (l *listeners) commit(p *prepared) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := maps.Clone(l.running)
	for name := range p.kept {
		now := l.live.Load().Listener(name)
		l.running[name].configure, l.running[name].address = now.Configured, now.Address
		delete(old, name)
	}
	passing := map[*running]bool{}
	for _, r := range p.bound {
		passing[r.from] = true
		r.from = nil
		l.running[r.name] = r
		l.serve(r)
		l.log.Info("listener up", "listener", r.name, "address", r.socket.Addr().String())
	}
	for name, r := range old {
		if l.running[name] == r {
			delete(l.running, name)
		}
		l.retire(r, passing[r])
	}
	for name, reason := range p.down {
		if l.down[name] != reason {
			l.log.Error("listener down", "listener", name, "error", reason)
		}
	}
	l.down = p.down
	l.descriptors.setListeners(len(l.running) + len(l.draining))
}

func (l *listeners) serve(r *running) {
	l.serves.Go(func() {
		err := r.server.Serve(r.socket)
		if !errors.Is(err, l4.ErrServerClosed) && !errors.Is(err, l7.ErrServerClosed) && !r.socket.passed.Load() {
			l.log.Error("listener failed", "listener", r.name, "error", err)
		}
	})
}

// retire stops accepting and drains; the socket is closed unless it is passed
// on. The caller holds l.mu.
func (l *listeners) retire(r *running, passed bool) {
	l.draining[r] = struct{}{}
	l.drains.Go(func() {
		if passed {
			r.socket.pass()
		}
		ctx, cancel := context.WithTimeout(context.Background(), l.drain)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			l.log.Warn("connections closed at the end of the drain timeout", "listener", r.name, "error", err)
		}
		l.mu.Lock()
		delete(l.draining, r)
		l.mu.Unlock()
		l.log.Info("listener gone", "listener", r.name)
	})
}

// shutdown drains every listener and waits for the end of all they started.
func (l *listeners) shutdown() {
	l.mu.Lock()
	for name, r := range l.running {
		delete(l.running, name)
		l.retire(r, false)
	}
	l.mu.Unlock()
	l.drains.Wait()
	l.serves.Wait()
	l.splices.Close()
}

// status returns the state of every listener of the snapshot and of those that
// drain, and in problems those whose socket could not be bound.
func (l *listeners) status(snap *snapshot.Snapshot) []*adminv1.ListenerStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*adminv1.ListenerStatus
	for _, want := range snap.Listeners() {
		if r := l.running[want.Name]; r != nil {
			out = append(out, r.status(adminv1.ListenerState_LISTENER_STATE_UP))
			continue
		}
		s := &adminv1.ListenerStatus{Name: want.Name, State: adminv1.ListenerState_LISTENER_STATE_DOWN, Address: want.Configured, Protocol: want.Protocol, Reason: want.Down}
		if s.Reason == "" {
			s.Reason = l.down[want.Name]
		}
		out = append(out, s)
	}
	var draining []*adminv1.ListenerStatus
	for r := range l.draining {
		draining = append(draining, r.status(adminv1.ListenerState_LISTENER_STATE_DRAINING))
	}
	slices.SortFunc(draining, func(a, b *adminv1.ListenerStatus) int { return strings.Compare(a.Name, b.Name) })
	return append(out, draining...)
}

func (r *running) status(state adminv1.ListenerState) *adminv1.ListenerStatus {
	s := &adminv1.ListenerStatus{
		Name: r.name, State: state, Address: r.configure, BoundAddress: boundAddress(r.socket.Addr()), Protocol: r.protocol,
	}
	if r.http != nil {
		stats := r.http.Stats()
		s.Connections, s.Accepted = int64(stats.Open), int64(stats.Accepted)
	} else {
		stats := r.tcp.Stats()
		s.Connections, s.Accepted = int64(stats.Open), int64(stats.Accepted)
	}
	return s
}

// boundAddress writes an address as the API does.
func boundAddress(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}

// each calls f for every bound listener, those that drain included.
func (l *listeners) each(f func(*running)) {
	l.mu.Lock()
	all := slices.Collect(maps.Values(l.running))
	all = slices.AppendSeq(all, maps.Keys(l.draining))
	l.mu.Unlock()
	for _, r := range all {
		f(r)
	}
}

// isDown reports whether the listener's socket could not be bound.
func (l *listeners) isDown(name string) bool { return l.downReason(name) != "" }

// downReason returns why the listener's socket could not be bound, "" if it
// could.
func (l *listeners) downReason(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down[name]
}
