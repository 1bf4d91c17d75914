package socket

import "syscall"

// A SendRoom writes to a Socket without waiting for room in the kernel's buffer. Its caller
// waits itself, without a goroutine. The rules for calling Write apply to its methods.
type SendRoom struct{ s *Socket }

// RoomOf returns the SendRoom of s.
func RoomOf(s *Socket) SendRoom { return SendRoom{s} }

// Raw returns the kernel's socket, or nil if another connection lies between the Socket
// and it.
func (r SendRoom) Raw() syscall.RawConn {
	if d := r.s.sender.toDirect(); d != nil {
		return d.raw
	}
	return nil
}

// Available reports whether a write would not wait: the kernel accepts bytes, or the write
// fails. It is true without a kernel's socket.
func (r SendRoom) Available() bool {
	d := r.s.sender.toDirect()
	if d == nil || d.isStuck() {
		return true
	}
	room, err := d.room()
	return room || err != nil
}

// TryFlush is Flush without the wait. It reports false if bytes are left that the kernel
// does not accept yet.
func (r SendRoom) TryFlush() (done bool, err error) {
	g := &r.s.out
	if g.pool == nil {
		return true, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tryFlushLocked()
}

// BeginWait is Direct.BeginWait. It has no effect without a kernel's socket.
func (r SendRoom) BeginWait(expired func()) {
	r.s.out.mu.Lock() // the reading goroutine may write too: see gather
	defer r.s.out.mu.Unlock()
	if d := r.s.sender.toDirect(); d != nil {
		d.BeginWait(expired)
	}
}
