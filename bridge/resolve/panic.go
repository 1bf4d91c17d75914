package resolve

import (
	"fmt"
	"runtime/debug"
)

// A PanicError is a panic of a goroutine that reads what servers send, or connects to
// them: it must not take the process down.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("internal error: panic: %v", e.Value) }

// catch makes a panic the error. It is deferred.
func catch(err *error) {
	if v := recover(); v != nil {
		*err = &PanicError{v, debug.Stack()}
	}
}
