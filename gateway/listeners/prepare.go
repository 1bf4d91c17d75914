package listeners

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Prepared is a set of bound sockets that are not served yet.
type Prepared struct {
	bound []*binding
	kept  []*Running          // checked listeners that keep their sockets
	going map[string]*Running // listeners that are removed or bound again, by name
	down  map[string]string
}

// A binding is a listener and the socket that it will serve.
type binding struct {
	*Running
	from    *Running       // the owner of the socket until Commit; nil: the binding owns it
	overlap *overlapSocket // Commit must call listen and unshare; nil: an ordinary socket
}

// Discard closes the sockets.
func (p *Prepared) Discard() {
	for _, b := range p.bound {
		if b.from == nil {
			b.socket.Close()
		}
	}
}

// Down returns how many listeners could not be bound.
func (p *Prepared) Down() int { return len(p.down) }

// Prepare binds the sockets that next needs and that are not bound yet. It checks only
// listeners that differ from the served ones, and listeners without a socket. It reports
// a socket that cannot be bound through fault, unless tolerate says that its listener may
// be down. On a fault the caller discards the result.
func (s *Set) Prepare(next *snapshot.Snapshot, tolerate func(name string) bool, fault func(name, problem string)) *Prepared {
	p := &Prepared{going: map[string]*Running{}, down: map[string]string{}}
	var todo []*snapshot.Listener
	for _, name := range s.changed(next) {
		have, want := s.running[name], next.Listener(name)
		switch {
		case want == nil || want.Down != "":
			if have != nil {
				p.going[name] = have
			}
		case have != nil && have.serves(want):
			p.kept = append(p.kept, have)
		default:
			if have != nil {
				p.going[name] = have
			}
			todo = append(todo, want)
		}
	}
	for _, have := range p.going {
		have.remember()
	}
	for _, want := range todo {
		b, err := s.bind(want, p.going)
		if err == nil {
			p.bound = append(p.bound, b)
			continue
		}
		problem := fmt.Sprintf("%s cannot be listened on: %v", want.Configured, cause(err))
		if tolerate(want.Name) {
			p.down[want.Name] = problem
		} else {
			fault(want.Name, problem)
		}
	}
	return p
}

func (r *Running) serves(want *snapshot.Listener) bool {
	return r.protocol == want.Protocol && r.holds(want)
}

// holds reports whether the socket is bound to the address, or to a port that the kernel
// chose for it.
func (r *Running) holds(want *snapshot.Listener) bool {
	return r.network == want.Network && (r.address == want.Address || r.socket.Addr().String() == want.Address) && !r.socket.isRevoked()
}

// changed returns the names of the listeners to check, in order: listeners that
// next changes, and listeners without a socket.
func (s *Set) changed(next *snapshot.Snapshot) []string {
	names := map[string]bool{}
	for name := range s.Down() {
		names[name] = true
	}
	for _, name := range next.ChangedListeners(s.served) {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// bind returns a socket for the listener. If a listener that next does not keep has
// bound the address, it hands its socket over, so that no client is rejected in
// between.
func (s *Set) bind(want *snapshot.Listener, going map[string]*Running) (*binding, error) {
	for _, have := range going {
		if have.holds(want) && !strings.HasSuffix(want.Address, ":0") {
			return &binding{Running: s.build(want, have.socket.next()), from: have}, nil
		}
	}
	bound, err := s.listen(want)
	if err == nil {
		return &binding{Running: s.build(want, newLease(bound, s.o.Descriptors, s.o.Hold))}, nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) || want.Network != "tcp" {
		return nil, err
	}
	// The address may overlap the address of a removed listener, as :8080 overlaps
	// 127.0.0.1:8080. The old socket must stay open until nothing can fail, so both are
	// bound for a while.
	var overlapped []*net.TCPListener
	for _, have := range going {
		if tcp, ok := have.socket.listener.(*net.TCPListener); ok && samePort(tcp.Addr(), want.Address) {
			overlapped = append(overlapped, tcp)
		}
	}
	if len(overlapped) == 0 {
		return nil, err
	}
	overlap, overlapErr := bindOverlapping(want.Address, overlapped)
	if overlapErr != nil {
		return nil, err
	}
	return &binding{Running: s.build(want, newLease(overlap.TCPListener, s.o.Descriptors, s.o.Hold)), overlap: overlap}, nil
}

func (s *Set) listen(want *snapshot.Listener) (listener, error) {
	// A nil *TCPListener in the interface would not be nil.
	if want.Network == "unix" {
		l, err := s.o.Sockets.ListenUnix(want.Address, want.Unix, unixsocket.Bind)
		if err != nil {
			return nil, err
		}
		return l, nil
	}
	l, err := s.o.Sockets.ListenTCP(owner(want.Name), want.Address)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// owner returns the name under which a listener's socket is passed to the next
// process.
func owner(listener string) string { return "listener " + listener }

// samePort reports whether the address has the port of a.
func samePort(a net.Addr, address string) bool {
	_, has, _ := net.SplitHostPort(a.String())
	_, wants, _ := net.SplitHostPort(address)
	return has == wants
}

// cause returns the kernel's error about a socket.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

func (s *Set) build(want *snapshot.Listener, socket *lease) *Running {
	r := &Running{Name: want.Name, protocol: want.Protocol, network: want.Network, address: want.Address, configured: want.Configured, unix: want.Unix, socket: socket}
	revalidation := validity.Options{Now: s.o.Now}
	if s.o.Unverified != nil {
		revalidation.Observe = func(f validity.Finding) { s.o.Unverified(want.Name, f) }
	}
	revision := func() int64 { return s.o.Live().State().Revision() }
	if want.Protocol == adminv1.Protocol_PROTOCOL_HTTP {
		table := &table[l7.Table]{now: func() *l7.Table { return s.o.Live().HTTP(want.Name) }}
		r.HTTP = l7.New(l7.Options{
			Listener: want.Name, Table: table.get, Splices: s.splices, Descriptors: s.o.Descriptors.Descriptors, AccessLog: s.o.AccessLog, Logger: s.o.Logger,
			Revalidation: revalidation, Revision: revision, Numbers: s.o.Numbers,
		})
		r.remember = table.remember
		return r
	}
	table := &table[l4.Table]{now: func() *l4.Table { return s.o.Live().TCP(want.Name) }}
	r.TCP = l4.New(l4.Options{
		Listener: want.Name, Table: table.get, Splices: s.splices, Descriptors: s.o.Descriptors.Descriptors, AccessLog: s.o.AccessLog, Logger: s.o.Logger,
		Revalidation: revalidation, Revision: revision, Numbers: s.o.Numbers,
	})
	r.remember = table.remember
	return r
}

// A table returns the table that a listener serves: the live one or, after the
// listener's removal, the last one. The last one serves connections accepted during
// the change, and requests on draining connections.
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
