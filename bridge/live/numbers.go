package live

import (
	"errors"
	"sync/atomic"
	"time"
)

// ErrClosed is the cause with which a connection ends when an operator closes it.
var ErrClosed = errors.New("an operator closed the connection")

// Numbers numbers the connections of a process in the order in which they begin. A nil
// *Numbers gives every connection the number 0.
type Numbers struct{ last atomic.Uint64 }

// NewNumbers returns Numbers that start above those of earlier processes, so that no
// number is reused after a restart.
func NewNumbers() *Numbers {
	n := new(Numbers)
	n.last.Store(uint64(time.Now().Unix()) << 24)
	return n
}

// Next returns the next number.
func (n *Numbers) Next() uint64 {
	if n == nil {
		return 0
	}
	return n.last.Add(1)
}
