package socket

import (
	"errors"
	"syscall"
)

// ErrUnsolicited is Exchange's error if the peer sent bytes or closed before Exchange sent
// anything. Fill and Read return the bytes that the peer sent.
var ErrUnsolicited = errors.New("socket: the peer sent bytes or closed before the request")

// Exchange sends a request on a connection that has been idle and waits for the answer.
// It checks that the peer sent nothing meanwhile, sends p, or the bytes that Gather holds
// if p is empty, and waits. It is equivalent to TryFill, Write or Flush, and Fill, with
// one system call less. Sent, if not nil, is called when p is no longer needed, before
// the wait. Exchange may be called only after Stream.
func (s *Socket) Exchange(p []byte, sent func()) error {
	if s.in.raw == nil {
		return s.exchangeInSteps(p, sent)
	}
	if len(s.in.taken) > 0 {
		return ErrUnsolicited
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
	s.in.exchanged, s.in.request, s.in.sent, s.in.err = false, p, sent, nil
	s.in.last = 0
	err := s.in.raw.Read(s.in.exchange)
	rest := s.in.request
	s.in.request = nil
	switch {
	case err != nil:
		s.Release()
		return err
	case !s.in.exchanged:
		if err := s.filled(); err != nil {
			return errors.Join(ErrUnsolicited, err)
		}
		return ErrUnsolicited
	case len(rest) > 0:
		_, err := s.sender.send(rest)
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

// exchangeInSteps is Exchange for a connection that is not a kernel socket.
func (s *Socket) exchangeInSteps(p []byte, sent func()) error {
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

// tryExchange checks, sends, and then reads. All of it happens within one wait for the
// socket to become readable, so an answer cannot arrive unnoticed.
func (s *Socket) tryExchange(fd uintptr) bool {
	if s.in.exchanged || s.in.tryRead(fd) {
		return !s.in.exchanged || s.in.tryRead(fd)
	}
	s.in.exchanged = true
	for len(s.in.request) > 0 {
		n, err := WriteNow(int(fd), s.in.request)
		s.in.request = s.in.request[n:]
		if err == syscall.ECONNRESET {
			s.sender.ends.reset.Store(true)
		}
		switch {
		case err == nil:
		case err != syscall.EAGAIN && s.sender.readBeforeReset.Load() && (err == syscall.ECONNRESET || err == syscall.EPIPE):
			s.in.request = nil
		default:
			return true // send will wait, or fail with the same error
		}
	}
	if s.in.sent != nil {
		s.in.sent()
	}
	return false
}
