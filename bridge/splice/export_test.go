package splice

// NewWaiting returns an Engine that uses goroutines, as on systems without epoll.
func NewWaiting() *Engine { return newEngine() }

// Move moves the splice to the next loop, as an overloaded loop does. It reports whether
// the splice moved.
func (s *Splice) Move() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.registration.loop
	return l != nil && !s.registration.runnable && l.give(s, s.engine.loops[(l.index+1)%len(s.engine.loops)])
}
