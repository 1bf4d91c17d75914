package http2

import (
	"cmp"
	"time"
)

// Options are a connection's. The zero value is useful.
type Options struct {
	// MaxStreams bounds how many streams there are at once. A server announces
	// it; a client opens no more, whatever the server allows. 0: 250.
	MaxStreams int

	// MaxHeaderBytes bounds the fields of a head or trailer that comes in, as
	// RFC 9113, section 6.5.2 counts them; MaxFields bounds their number.
	// 0: 64 KiB, and 200.
	MaxHeaderBytes, MaxFields int

	// HeaderTimeout bounds how long the peer may take for its connection
	// preface, and for a frame or a header block from its first byte to its
	// last. 0: 10s.
	HeaderTimeout time.Duration

	// IdleTimeout is how long the connection is kept without a stream. 0: 60s.
	IdleTimeout time.Duration

	// StallTimeout is how long a Write may wait for the peer's window, and for
	// how long the peer may take nothing of what was sent to it. 0: 60s.
	StallTimeout time.Duration

	// BodyTimeout is how long a server's Read may wait for a byte of a request's
	// body; and all of them together no longer than that, and a second for each
	// MinRate bytes that have come. Then Read fails with os.ErrDeadlineExceeded,
	// and the client may still be answered. Once Respond was called it is not
	// bounded any more: who answers while the client still sends has a
	// conversation with it, in which either may be silent. BodyTimeout 0: never
	// bounded. MinRate 0: only each wait is.
	BodyTimeout time.Duration
	MinRate     int

	// PingInterval is the silence, of both sides, after which the peer is asked
	// whether it is still there, and PingTimeout how long its answer may take.
	// 0: 30s, 15s.
	PingInterval, PingTimeout time.Duration

	// MaxAge is for how long the connection takes further streams, MaxRequests
	// after how many a server's takes no more: it is closed when those it has
	// are over, as by Retire or Shutdown. 0: no limit.
	MaxAge      time.Duration
	MaxRequests int

	// ExtendedConnect lets a server's clients use CONNECT with a protocol (RFC
	// 8441), such as WebSocket's.
	ExtendedConnect bool

	// Refused, if not nil, is told why a server refused a stream of its own
	// accord: a malformed request, one too many. It is called by the goroutine
	// that reads the connection and must not block.
	Refused func(err *Error)

	// Panicked, if not nil, is called with the value and the stack of a panic in
	// one of the connection's goroutines, which ends the exchange or the
	// connection.
	Panicked func(value any, stack []byte)

	// Wake, if not nil, lets a server's Serve return ErrParked, and is called when
	// Serve is to be called again although nothing has come. It may be called for
	// nothing, by any goroutine, one in a call of the connection's among them, and
	// must not block.
	Wake func()

	// Changed, if not nil, is called when a client's connection may have room
	// for a stream that it had not, became idle, takes no more streams, or has
	// closed. It may be called by any goroutine, one that is in Done or Abort
	// among them, and must not block.
	Changed func()
}

// withDefaults returns o with its zeros filled in.
func (o Options) withDefaults() Options {
	o.MaxStreams = cmp.Or(o.MaxStreams, 250)
	o.MaxHeaderBytes = cmp.Or(o.MaxHeaderBytes, 64<<10)
	o.MaxFields = cmp.Or(o.MaxFields, 200)
	o.HeaderTimeout = cmp.Or(o.HeaderTimeout, 10*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, time.Minute)
	o.StallTimeout = cmp.Or(o.StallTimeout, time.Minute)
	o.PingInterval = cmp.Or(o.PingInterval, 30*time.Second)
	o.PingTimeout = cmp.Or(o.PingTimeout, 15*time.Second)
	return o
}
