package l4

// BreakSplices makes each connection panic after the dial, until restore is called.
func (s *Server) BreakSplices() (restore func()) {
	splices := s.splices
	s.splices = nil
	return func() { s.splices = splices }
}
