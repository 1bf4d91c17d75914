package socket

import (
	"errors"
	"syscall"
)

// ErrUnasked is what Ask fails with if something has come before it was asked
// for, or the connection has ended. Nothing was sent. What has come is there
// to be read.
var ErrUnasked = errors.New("socket: something came that was not asked for")

// Ask is for a connection that has been idle and is used again: it looks that
// nothing has come meanwhile, sends p or, if that is empty, what Gather holds,
// and waits for an answer, as TryFill, Write or Flush, and Fill would, one
// after the other, with a system call less. Sent, if not nil, is called when p is
// not needed any more, before the wait. It may be called only after Stream.
func (s *Socket) Ask(p []byte, sent func()) error {
	if s.in.raw == nil {
		return s.askInTurn(p, sent)
	}
	if len(s.in.taken) > 0 {
		return ErrUnasked
	}
	if len(p) == 0 {
		s.out.mu.Lock()
		defer s.out.mu.Unlock()
		if s.out.err != nil {
			return s.out.err
		}
		if s.out.n == 0 {
			return nil
		}
		p, sent = (*s.out.buf)[:s.out.n], s.in.drop
	}
	s.in.asked, s.in.request, s.in.sent, s.in.err = false, p, sent, nil
	s.in.last = 0
	err := s.in.raw.Read(s.in.ask)
	rest := s.in.request
	s.in.request = nil
	switch {
	case err != nil:
		s.Release()
		return err
	case !s.in.asked:
		if err := s.filled(); err != nil {
			return errors.Join(ErrUnasked, err)
		}
		return ErrUnasked
	case len(rest) > 0:
		_, err := s.send(rest)
		if sent != nil {
			sent()
		}
		if err != nil {
			return err
		}
		return s.Fill()
	}
	return s.filled()
}

// askInTurn is Ask for what is no kernel socket.
func (s *Socket) askInTurn(p []byte, sent func()) error {
	if len(p) == 0 {
		if err := s.Flush(); err != nil {
			return err
		}
	} else if _, err := s.Write(p); err != nil {
		return err
	}
	if sent != nil {
		sent()
	}
	return s.Fill()
}

// tryAsk looks, sends, and from then on reads. All of it happens within one wait
// for the socket to become readable, so that the answer cannot come unnoticed.
func (s *Socket) tryAsk(fd uintptr) bool {
	if s.in.asked || s.tryRead(fd) {
		return !s.in.asked || s.tryRead(fd)
	}
	s.in.asked = true
	for len(s.in.request) > 0 {
		n, err := WriteNow(int(fd), s.in.request)
		s.in.request = s.in.request[n:]
		if err == syscall.ECONNRESET {
			s.ends.reset.Store(true)
		}
		switch {
		case err == nil:
		case err != syscall.EAGAIN && s.unheard.Load() && (err == syscall.ECONNRESET || err == syscall.EPIPE):
			s.in.request = nil
		default:
			return true // send waits, or fails for the same reason
		}
	}
	if s.in.sent != nil {
		s.in.sent()
	}
	return false
}
