package socket

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// warnEvery is the least time between two warnings about one listener.
const warnEvery = 10 * time.Second

// Accept hands each connection of ln to take, which owns it and must not block,
// until stop is closed or accepting fails for good. It returns what Accept
// failed with; ln stays the caller's.
//
// When the process or the machine is out of descriptors or memory, Accept waits
// and tries again, from 5ms to 1s: the kernel keeps what comes, and trying again
// at once would only burn the processor that is needed to close something.
func Accept(ln net.Listener, stop <-chan struct{}, log hclog.Logger, take func(net.Conn)) error {
	var pause time.Duration
	var warned time.Time
	for {
		conn, err := ln.Accept()
		if err == nil {
			pause = 0
			take(conn)
			continue
		}
		select {
		case <-stop:
			return err
		default:
		}
		if !passing(err) {
			return err
		}
		if now := time.Now(); now.Sub(warned) >= warnEvery {
			warned = now
			log.Warn("cannot accept connections for now", "error", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-stop:
			return err
		}
	}
}

// passing reports whether accepting may work again later: the process or the
// machine is out of descriptors or memory, or the client was gone already.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
