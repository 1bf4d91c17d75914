package resolve

import (
	"fmt"
	"runtime/debug"
)

// A PanicError is a panic of a goroutine that handles data from servers or
// connects to them. It must not end the process.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("internal error: panic: %v", e.Value) }

// catch turns a panic into an error. It must be deferred.
func catch(err *error) {
	if v := recover(); v != nil {
		*err = &PanicError{v, debug.Stack()}
	}
}
