package socket

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// warnEvery is the minimum time between two warnings about one listener.
const warnEvery = 10 * time.Second

// Accept passes each connection of ln to take, which owns it and must not block. It
// returns the error of ln.Accept once stop is closed or the error is permanent. The
// caller closes ln.
//
// When the process or the machine is out of descriptors or memory, Accept waits from
// 5ms to 1s and tries again. Meanwhile the kernel queues connections. Immediate
// retries would only use the CPU that is needed to close connections.
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
		if !isTemporary(err) {
			return err
		}
		if now := time.Now(); now.Sub(warned) >= warnEvery {
			warned = now
			log.Warn("cannot accept connections; retrying", "error", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-stop:
			return err
		}
	}
}

// isTemporary reports whether accepting may work again later: the process or the
// machine is out of descriptors or memory, or the client has already closed.
func isTemporary(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
