package splice

import (
	"cmp"
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// interest is what a loop is told of, once each time it happens. Of urgent data
// because a read stops at it, and what follows has been told of already.
const interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

// alarm is what a loop's own descriptor, which wakes it, is known by.
const alarm = -1

// slice is how long a loop may run while other goroutines wait.
const slice = time.Millisecond

// A loop carries its splices by turns.
type loop struct {
	epoll   int
	alarm   int      // an eventfd
	file    *os.File // of epoll, for the runtime's poller
	splices atomic.Int64
	ended   chan struct{}

	// By what epoll calls them.
	mu     sync.Mutex
	table  table[Splice]
	parked table[Parked]

	// Of the loop's goroutine.
	engine *Engine
	more   []*Splice // are to have another turn
	woken  []*Parked // that something happened to
}

// What an event is about: a side of a splice, or a connection that is parked.
const (
	ofClient int32 = iota
	ofUpstream
	ofParked
)

// A table calls things by small numbers.
type table[T any] struct {
	slots []*T
	free  []int32
}

func (t *table[T]) add(x *T) int32 {
	if n := len(t.free); n > 0 {
		slot := t.free[n-1]
		t.free, t.slots[slot] = t.free[:n-1], x
		return slot
	}
	t.slots = append(t.slots, x)
	return int32(len(t.slots) - 1)
}

func (t *table[T]) remove(slot int32) {
	t.slots[slot] = nil
	t.free = append(t.free, slot)
}

func (e *Engine) open(loops int) error {
	if loops == 0 {
		loops = runtime.GOMAXPROCS(0)
	}
	for range loops {
		l, err := newLoop(e)
		if err != nil {
			e.Close()
			return err
		}
		e.loops = append(e.loops, l)
		go l.run()
	}
	return nil
}

func newLoop(e *Engine) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that the runtime waits for it
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	interest := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: alarm}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, event, &interest); err != nil {
		unix.Close(event)
		unix.Close(fd)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return &loop{epoll: fd, alarm: event, file: os.NewFile(uintptr(fd), "epoll"), ended: make(chan struct{}), engine: e}, nil
}

func (l *loop) close() {
	l.file.Close() // ends the wait
	<-l.ended
	unix.Close(l.alarm)
}

// wake makes the loop's epoll set ready. Nobody reads what is written: each
// write is an event, and what they add up to never comes near a limit.
func (l *loop) wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = socket.WriteNow(l.alarm, one[:])
}

// enter adds a splice. Its lock is held, so that its descriptors are open.
func (l *loop) enter(s *Splice) error {
	l.mu.Lock()
	slot := l.table.add(s)
	l.mu.Unlock()
	l.splices.Add(1)
	s.place.loop, s.place.slot = l, slot
	for i, x := range []*side{&s.client, &s.upstream} {
		// A new descriptor is told of at once, as it can be written to.
		event := unix.EpollEvent{Events: interest, Fd: slot, Pad: int32(i)}
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, x.fd, &event); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return nil
}

// leave forgets a splice. Its slot may be another's when the loop comes to an
// event of its: that costs a turn for nothing.
func (l *loop) leave(s *Splice) {
	l.mu.Lock()
	l.table.remove(s.place.slot)
	l.mu.Unlock()
	l.splices.Add(-1)
}

// park has p told of what happens to it, once.
func (l *loop) park(p *Parked) error {
	l.mu.Lock()
	p.slot = l.parked.add(p)
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: p.slot, Pad: ofParked}
	l.mu.Unlock()
	return p.control(unix.EPOLL_CTL_ADD, &event)
}

// leaveParked forgets p, if it is parked. An event of its that is on the way may
// wake another one, for nothing.
func (l *loop) leaveParked(p *Parked) bool {
	l.mu.Lock()
	parked := p.slot >= 0
	if parked {
		l.parked.remove(p.slot)
		p.slot = -1
	}
	l.mu.Unlock()
	if parked {
		_ = p.control(unix.EPOLL_CTL_DEL, nil) // fails only if it is closed, or never was in the set
	}
	return parked
}

// control changes what the loop's set has of p, whose descriptor is open
// meanwhile.
func (p *Parked) control(op int, event *unix.EpollEvent) error {
	var failed error
	err := p.raw.Control(func(fd uintptr) { failed = unix.EpollCtl(p.loop.epoll, op, int(fd), event) })
	return cmp.Or(err, os.NewSyscallError("epoll_ctl", failed))
}

// run gives turns until the loop is closed.
func (l *loop) run() {
	defer close(l.ended)
	raw, err := l.file.SyscallConn()
	if err != nil {
		return // closed
	}
	events := make([]unix.EpollEvent, 128)
	splices := make([]*Splice, len(events))
	n := 0
	poll := func(uintptr) bool {
		n = epollNow(l.epoll, events)
		return n != 0
	}
	yielded := false
	yield := func(uintptr) bool {
		if yielded = !yielded; yielded {
			l.wake()
			return false
		}
		n = epollNow(l.epoll, events)
		return true
	}
	var busy time.Time // since when the loop has run without a pause
	for {
		switch {
		case len(l.more) == 0:
			err = raw.Read(poll)
			busy = time.Time{}
		case busy.IsZero():
			busy = time.Now()
			n = epollNow(l.epoll, events)
		case time.Since(busy) < slice:
			n = epollNow(l.epoll, events)
		default:
			// The runtime looks for what goroutines wait for, such as those who
			// accept and shake hands, when there is nothing else to run, and
			// else every 10ms: so the loop waits, for what has happened already.
			err = raw.Read(yield)
			busy = time.Now()
		}
		if err != nil {
			return // closed
		}
		if n < 0 {
			// Not what epoll_wait is known to do; a pause, lest it be all that
			// the processor does.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		l.mu.Lock()
		for i := range n {
			switch e := &events[i]; {
			case e.Fd == alarm:
			case e.Pad != ofParked:
				splices[i] = l.table.slots[e.Fd]
			case l.parked.slots[e.Fd] != nil:
				l.woken = append(l.woken, l.parked.slots[e.Fd])
			}
		}
		l.mu.Unlock()
		l.wakeParked()
		// Nothing is held while the loop waits.
		space := l.engine.space(0)
		for i := range n {
			if splices[i] != nil {
				l.happened(splices[i], space, events[i].Pad, events[i].Events)
				splices[i] = nil
			}
		}
		l.engine.putSpace(space)
		// One of those in full flow, lest all the others wait for all of them.
		if len(l.more) > 0 {
			s, flowing := l.more[0], len(l.more)
			left := copy(l.more, l.more[1:])
			l.more[left] = nil
			l.more = l.more[:left]
			s.mu.Lock()
			s.place.more = false
			if !s.wantsMuch() {
				flowing = 0
			}
			space := l.engine.space(flowing)
			l.turn(s, space)
			l.engine.putSpace(space)
		}
	}
}

// wakeParked wakes those that something happened to.
func (l *loop) wakeParked() {
	for _, p := range l.woken {
		p.Wake()
	}
	clear(l.woken)
	l.woken = l.woken[:0]
}

// happened notes what happened to a side of a splice, and gives that its turn,
// unless it is in full flow: then it waits for it.
func (l *loop) happened(s *Splice, space *workspace, which int32, events uint32) {
	s.mu.Lock()
	x := &s.client
	if which == ofUpstream {
		x = &s.upstream
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		x.readable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		x.urgent = true
	}
	switch {
	case s.place.more:
		s.mu.Unlock()
	case s.flows():
		s.place.more = true
		l.more = append(l.more, s)
		s.mu.Unlock()
	default:
		l.turn(s, space)
	}
}

// turn gives a splice its turn. Its lock is held, and released.
func (l *loop) turn(s *Splice, space *workspace) {
	if s.turn(space) {
		s.place.more = true
		l.more = append(l.more, s)
	}
	ended := s.ended()
	s.mu.Unlock()
	if ended {
		s.tell()
	}
}

// useOwn gives the side a descriptor of its own and closes conn. The runtime's
// poller, which knew conn's, would else wake up for all that happens to it. For
// want of another descriptor conn's is used.
func (x *side) useOwn(conn net.Conn) error {
	if err := x.useRaw(conn); err != nil {
		return err
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	own := -1
	if err := raw.Control(func(fd uintptr) { own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return err
	}
	if err != nil {
		return nil
	}
	x.fd, x.conn = own, nil
	_ = conn.Close()
	return nil
}
