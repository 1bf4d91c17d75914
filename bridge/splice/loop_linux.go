package splice

import (
	"cmp"
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// interest is the set of events that a loop waits for, edge-triggered. It includes
// urgent data (EPOLLPRI): a read stops there, and epoll has already reported the bytes
// that follow.
const interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

// wakeSlot marks events of the loop's own eventfd.
const wakeSlot = -1

// maxBusy is how long a loop may run before it lets other goroutines run.
const maxBusy = time.Millisecond

// A loop carries the bytes of its splices, one turn at a time.
type loop struct {
	index  int             // in the Engine's loops
	file   *os.File        // the epoll set
	epoll  syscall.RawConn // the epoll set; its number is used only inside the methods of epoll
	wakeFD int             // an eventfd that makes epoll ready
	load   load
	ended  chan struct{}

	// The splices and parked connections, by the slot in an epoll event.
	mu     sync.Mutex
	table  table[Splice]
	parked table[Parked]

	// Used only by the loop's goroutine.
	engine   *Engine
	runnable []*Splice // waiting for another turn
	woken    []*Parked // parked connections whose event arrived
	move     move
}

// The subject of an event: a side of a splice, or a parked connection.
const (
	eventClient int32 = iota
	eventUpstream
	eventParked
)

// A table assigns small numbers to pointers.
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
		l.index = len(e.loops)
		e.loops = append(e.loops, l)
	}
	for _, l := range e.loops { // they read e.loops
		go l.run()
	}
	return nil
}

func newLoop(e *Engine) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // the runtime's poller requires it
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	interest := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, event, &interest); err != nil {
		unix.Close(event)
		unix.Close(fd)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	l := &loop{file: os.NewFile(uintptr(fd), "epoll"), wakeFD: event, ended: make(chan struct{}), engine: e}
	if l.epoll, err = l.file.SyscallConn(); err != nil {
		unix.Close(event)
		l.file.Close()
		return nil, err
	}
	return l, nil
}

// control changes the epoll set's entry of a descriptor. After close it fails: the set's
// number may by then belong to another file.
func (l *loop) control(op, fd int, event *unix.EpollEvent) error {
	var failed error
	err := l.epoll.Control(func(epoll uintptr) { failed = unix.EpollCtl(int(epoll), op, fd, event) })
	return cmp.Or(err, os.NewSyscallError("epoll_ctl", failed))
}

func (l *loop) close() {
	l.file.Close() // ends the loop's wait
	<-l.ended
	unix.Close(l.wakeFD)
}

// wake makes the loop's epoll set ready. The eventfd is never read: each write is an
// event, and its counter cannot overflow in practice.
func (l *loop) wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = socket.WriteNow(l.wakeFD, one[:])
}

// enter adds a splice. The caller holds s.mu, so the descriptors are open.
func (l *loop) enter(s *Splice) error {
	l.mu.Lock()
	slot := l.table.add(s)
	l.mu.Unlock()
	s.registration = registration{loop: l, slot: slot}
	for i, x := range []*side{&s.client, &s.upstream} {
		// epoll reports a new descriptor at once, because it is writable.
		event := unix.EpollEvent{Events: interest, Fd: slot, Pad: int32(i)}
		if err := l.control(unix.EPOLL_CTL_ADD, x.fd, &event); err != nil {
			return err
		}
	}
	return nil
}

// pause makes the loop wait for no bytes of a side. It reports false if it cannot.
func (l *loop) pause(x *side) bool {
	return l.await(x, interest&^unix.EPOLLIN) == nil
}

// resume undoes pause: epoll reports at once what has arrived.
func (l *loop) resume(x *side) {
	_ = l.await(x, interest) // fails only on a closed descriptor
}

// await changes the events of a side. The caller holds the splice's mu, so the descriptor
// is open.
func (l *loop) await(x *side, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: x.splice.registration.slot}
	if x == &x.splice.upstream {
		event.Pad = eventUpstream
	}
	return l.control(unix.EPOLL_CTL_MOD, x.fd, &event)
}

// leave removes a splice. If another splice reuses the slot, a pending event costs that
// splice a turn without bytes.
func (l *loop) leave(s *Splice) {
	l.mu.Lock()
	l.table.remove(s.registration.slot)
	l.mu.Unlock()
}

// give moves a splice to another loop, which gets an event for it at once. It reports
// false if the splice must stay: a pause or an end is in progress. The caller holds s.mu,
// and the splice is not in l.runnable.
func (l *loop) give(s *Splice, to *loop) bool {
	for _, x := range s.sides() {
		if x.fd < 0 || x.paused || s.closing || s.closed {
			return false
		}
	}
	l.remove(s)
	err := to.enter(s)
	if err != nil {
		to.remove(s)
		err = l.enter(s)
	}
	if err != nil {
		s.setEnding(s.upstream.endingOf(err), err)
		s.close()
	}
	return true
}

// remove undoes enter.
func (l *loop) remove(s *Splice) {
	l.leave(s)
	for _, x := range s.sides() {
		_ = l.control(unix.EPOLL_CTL_DEL, x.fd, nil) // fails only if the descriptor was never added
	}
}

// park waits for one event on p.
func (l *loop) park(p *Parked) error {
	l.mu.Lock()
	p.slot = l.parked.add(p)
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: p.slot, Pad: eventParked}
	if p.room {
		event.Events = unix.EPOLLOUT | unix.EPOLLONESHOT
	}
	l.mu.Unlock()
	return p.control(unix.EPOLL_CTL_ADD, &event)
}

// leaveParked removes p if it is parked. A pending event may wake the next user of the
// slot spuriously.
func (l *loop) leaveParked(p *Parked) bool {
	l.mu.Lock()
	parked := p.slot >= 0
	if parked {
		l.parked.remove(p.slot)
		p.slot = -1
	}
	l.mu.Unlock()
	if parked {
		_ = p.control(unix.EPOLL_CTL_DEL, nil) // fails only if the socket is closed or was never added
	}
	return parked
}

// control changes p's entry in the epoll set. RawConn.Control keeps the descriptor open
// meanwhile.
func (p *Parked) control(op int, event *unix.EpollEvent) error {
	var failed error
	err := p.raw.Control(func(fd uintptr) { failed = p.loop.control(op, int(fd), event) })
	return cmp.Or(err, failed)
}

// run waits for events and runs turns until the loop is closed.
func (l *loop) run() {
	defer close(l.ended)
	events := make([]unix.EpollEvent, 128)
	splices := make([]*Splice, len(events))
	n := 0
	look := func(epoll uintptr) bool {
		n = epollNow(int(epoll), events)
		return true
	}
	wait := func(epoll uintptr) bool {
		look(epoll)
		return n != 0
	}
	yielded := false
	yield := func(epoll uintptr) bool {
		if yielded = !yielded; yielded {
			l.wake()
			return false
		}
		return look(epoll)
	}
	var busy time.Time // when the loop last paused; zero if it has just waited
	for {
		var err error
		began := l.engine.now()
		switch {
		case len(l.runnable) == 0:
			err = l.epoll.Read(wait)
			busy = time.Time{}
		case busy.IsZero():
			busy = time.Now()
			err = l.epoll.Read(look)
		case time.Since(busy) < maxBusy:
			err = l.epoll.Read(look)
		default:
			// The runtime polls the network when it has nothing to run, and otherwise
			// every 10ms. So the loop waits for an event that is already pending:
			// goroutines that accept and handshake get to run.
			err = l.epoll.Read(yield)
			busy = time.Now()
		}
		if err != nil {
			return // the loop was closed
		}
		if n < 0 {
			// epoll_wait is not known to fail here; the pause keeps a failure from
			// using a whole processor.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if now := l.engine.now(); l.load.wait(began, now) {
			l.balance(now)
		}
		l.mu.Lock()
		for i := range n {
			switch e := &events[i]; {
			case e.Fd == wakeSlot:
			case e.Pad != eventParked:
				splices[i] = l.table.slots[e.Fd]
			case l.parked.slots[e.Fd] != nil:
				l.woken = append(l.woken, l.parked.slots[e.Fd])
			}
		}
		l.mu.Unlock()
		l.wakeParked()
		// The loop holds no workspace while it waits.
		space := l.engine.getWorkspace(0)
		for i := range n {
			if splices[i] != nil {
				l.handleEvent(splices[i], space, events[i].Pad, events[i].Events)
				splices[i] = nil
			}
		}
		l.engine.putWorkspace(space)
		// Run one bulk turn, then look for events again, so that interactive
		// connections do not wait for all bulk ones.
		if len(l.runnable) > 0 {
			s, flowing := l.runnable[0], len(l.runnable)
			left := copy(l.runnable, l.runnable[1:])
			l.runnable[left] = nil
			l.runnable = l.runnable[:left]
			s.mu.Lock()
			s.registration.runnable = false
			if !s.canMoveBulk() {
				flowing = 0
			}
			space := l.engine.getWorkspace(flowing)
			l.turn(s, space)
			l.engine.putWorkspace(space)
		}
	}
}

// balance plans at the end of a window which splices move to another loop.
func (l *loop) balance(now time.Duration) {
	_, active := l.load.next(now)
	l.move = move{}
	if to, number := plan(l.engine.loads(), l.index, active, l.load.full); number > 0 {
		l.move = move{l.engine.loops[to], number}
		l.load.full = 0 // measure the effect before moving more
	}
}

// wakeParked wakes the parked connections whose event arrived.
func (l *loop) wakeParked() {
	for _, p := range l.woken {
		p.Wake()
	}
	clear(l.woken)
	l.woken = l.woken[:0]
}

// handleEvent records an event of one side and runs a turn. A bulk splice is queued for
// its turn instead.
func (l *loop) handleEvent(s *Splice, space *workspace, side int32, events uint32) {
	s.mu.Lock()
	if s.registration.loop != l { // it has moved, and the other loop gets the event
		s.mu.Unlock()
		return
	}
	x := &s.client
	if side == eventUpstream {
		x = &s.upstream
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		x.readable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		x.readToEAGAIN = true
	}
	switch {
	case s.registration.runnable:
		s.mu.Unlock()
	case s.isBulk():
		s.registration.runnable = true
		l.runnable = append(l.runnable, s)
		s.mu.Unlock()
	default:
		l.turn(s, space)
	}
}

// turn runs a splice's turn, or moves it to another loop. The caller holds s.mu; turn
// releases it.
func (l *loop) turn(s *Splice, space *workspace) {
	if l.move.number > 0 && l.give(s, l.move.to) {
		l.move.number--
	} else if l.load.count(&s.registration.window); s.turn(space) {
		s.registration.runnable = true
		l.runnable = append(l.runnable, s)
	}
	ended := s.claimDone()
	s.mu.Unlock()
	if ended {
		s.notifyDone()
	}
}

// useDuplicate gives the side its own duplicate of conn's descriptor and closes conn:
// the runtime's poller would otherwise wake for every event on it. If no descriptor is
// available, the side uses conn's.
func (x *side) useDuplicate(conn net.Conn) error {
	if err := x.useShared(conn); err != nil {
		return err
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	duplicate := -1
	if err := raw.Control(func(fd uintptr) { duplicate, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return err
	}
	if err != nil {
		return nil
	}
	x.fd, x.conn = duplicate, nil
	_ = conn.Close()
	return nil
}
