package splice

import "sync"

// A Source has the Engine that it was made with, or makes one of its own when
// that is needed first. All methods may be called concurrently.
type Source struct {
	loops int

	mu     sync.Mutex
	engine *Engine // nil until there is one
	own    bool    // it is the Source's to close
}

// NewSource returns a Source of e, which its owner closes. If e is nil the
// Source's own will have as many loops as New says.
func NewSource(e *Engine, loops int) *Source { return &Source{engine: e, loops: loops} }

// Engine returns the Engine.
func (s *Source) Engine() (*Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		e, err := New(s.loops)
		if err != nil {
			return nil, err
		}
		s.engine, s.own = e, true
	}
	return s.engine, nil
}

// Close closes the Engine if it is the Source's own: every splice must have
// ended. It may be called again.
func (s *Source) Close() {
	s.mu.Lock()
	own := s.own
	s.own = false
	s.mu.Unlock()
	if own {
		s.engine.Close()
	}
}
