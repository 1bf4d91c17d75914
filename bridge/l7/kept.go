package l7

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"sync/atomic"
)

// errUnasked is what a request fails with whose response was there before it.
var errUnasked = errors.New("the upstream sent more than the response to an earlier request")

// A kept is an HTTP/1 connection to an upstream that net/http keeps for further
// requests. What an upstream sends beyond a response would be taken for the
// response to whatever request comes next, another client's: net/http looks for
// such bytes only once the connection is in the pool, where the next request may
// have it already. So a kept tells by the order of reads and writes.
type kept struct {
	net.Conn
	phase atomic.Int32
}

// The phases of a kept.
const (
	keptIdle    int32 = iota
	keptTaken         // by a request, nothing of which was written yet
	keptAsked         // something was written
	keptAnswer        // and something was read after that
	keptUnasked       // something was there to be read before that
)

func (k *kept) Read(p []byte) (int, error) {
	n, err := k.Conn.Read(p)
	if n > 0 && !k.phase.CompareAndSwap(keptAsked, keptAnswer) {
		k.phase.CompareAndSwap(keptTaken, keptUnasked)
	}
	return n, err
}

func (k *kept) Write(p []byte) (int, error) {
	k.phase.CompareAndSwap(keptTaken, keptAsked)
	return k.Conn.Write(p)
}

// trace returns hooks that follow a request's connection: it is kept in x if it
// is a kept.
func (x *exchange) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			k, _ := info.Conn.(*kept)
			if k != nil {
				k.phase.Store(keptTaken)
			}
			x.kept.Store(k)
			tc, _ := info.Conn.(*tls.Conn)
			x.shared.Store(tc)
		},
		GotFirstResponseByte: func() {
			if k := x.kept.Load(); k != nil && k.phase.Load() != keptAnswer {
				k.phase.Store(keptUnasked)
			}
		},
	}
}

// unasked reports whether the response that was received is none to x.
func (x *exchange) unasked() bool {
	k := x.kept.Load()
	return k != nil && k.phase.Load() == keptUnasked
}
