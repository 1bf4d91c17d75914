package splice

import (
	"errors"
	"runtime/debug"
)

// errPanic is the cause of a splice that ended with Panicked.
var errPanic = errors.New("panic while carrying bytes")

// recoverPanic ends the splice if the goroutine that carries its bytes panics: a loop
// serves many other splices. It is deferred while mu is held.
func (s *Splice) recoverPanic() {
	if p := recover(); p != nil {
		s.setEnding(Panicked, errPanic)
		s.close()
		s.reportPanic(p)
	}
}

// reportPanic calls the Panicked callback.
func (s *Splice) reportPanic(value any) {
	if s.options.Panicked != nil {
		s.options.Panicked(value, debug.Stack())
	}
}
