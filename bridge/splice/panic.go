package splice

import (
	"errors"
	"runtime/debug"
)

// errPanic is the cause of the end of a splice that panicked.
var errPanic = errors.New("panic while carrying bytes")

// rescue ends the splice if whoever carries its bytes, with mu held, panics: a loop
// serves many others. It is deferred.
func (s *Splice) rescue() {
	if p := recover(); p != nil {
		s.note(Panicked, errPanic)
		s.close()
		s.panicked(p)
	}
}

// panicked tells of a panic.
func (s *Splice) panicked(value any) {
	if s.options.Panicked != nil {
		s.options.Panicked(value, debug.Stack())
	}
}
