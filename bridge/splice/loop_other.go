//go:build !linux

package splice

import (
	"errors"
	"net"
)

// A loop exists only on Linux.
type loop struct {
	index int
	load  load
}

func (e *Engine) open(int) error { return nil }

func (l *loop) close()              {}
func (l *loop) enter(*Splice) error { return errors.ErrUnsupported }
func (l *loop) leave(*Splice)       {}

func (l *loop) give(*Splice, *loop) bool { return false }

func (l *loop) park(*Parked) error       { return errors.ErrUnsupported }
func (l *loop) leaveParked(*Parked) bool { return false }

func (x *side) useDuplicate(net.Conn) error { return errors.ErrUnsupported }

func (l *loop) pause(*side) bool { return false }

func (l *loop) resume(*side) {}
