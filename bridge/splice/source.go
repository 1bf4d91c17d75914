package splice

import "sync"

// A Source returns the Engine it was created with, or creates its own on first use. All
// methods may be called concurrently.
type Source struct {
	loops int

	mu         sync.Mutex
	engine     *Engine // nil until created
	ownsEngine bool    // the Source created the engine and closes it
}

// NewSource returns a Source of e, which e's owner closes. If e is nil, the Source
// creates an Engine with the given number of loops, as in New.
func NewSource(e *Engine, loops int) *Source { return &Source{engine: e, loops: loops} }

// Engine returns the Engine, and creates it if necessary.
func (s *Source) Engine() (*Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		e, err := New(s.loops)
		if err != nil {
			return nil, err
		}
		s.engine, s.ownsEngine = e, true
	}
	return s.engine, nil
}

// Close closes the Engine if the Source created it. Every splice must have ended. Close
// may be called again.
func (s *Source) Close() {
	s.mu.Lock()
	ownsEngine := s.ownsEngine
	s.ownsEngine = false
	s.mu.Unlock()
	if ownsEngine {
		s.engine.Close()
	}
}
