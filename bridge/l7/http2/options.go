package http2

import (
	"cmp"
	"time"
)

// Options configure a connection. The zero value is useful.
type Options struct {
	// MaxStreams bounds the number of concurrent streams. A server announces
	// it. A client opens no more, even if the server allows more. 0: 100 for a
	// server, 250 for a client.
	MaxStreams int

	// MaxMemory bounds what the open streams of a server's connection hold besides
	// their windows: for each, StreamMemory and the size of its head. A stream above
	// the bound is refused; the client can send the request again. 0: 1 MiB, and 8
	// KiB.
	MaxMemory, StreamMemory int

	// UnreadMemory is what a response that the client does not read holds outside this
	// package, whatever the client's window is. It counts against MaxMemory as far as it
	// exceeds the window that a stream begins with. 0: nothing.
	UnreadMemory int

	// MaxHeaderBytes bounds the size of a received head or trailer, as defined
	// in RFC 9113, section 6.5.2. MaxFields bounds the number of its fields. 0:
	// 64 KiB, and 200.
	MaxHeaderBytes, MaxFields int

	// HeaderTimeout bounds how long the peer may take to send its connection
	// preface, and each frame or header block. 0: 10s.
	HeaderTimeout time.Duration

	// IdleTimeout is how long the connection stays open without a stream. 0: 60s.
	IdleTimeout time.Duration

	// StallTimeout bounds how long a Write may wait for the peer's window, and
	// how long the peer may stop reading. 0: 60s.
	StallTimeout time.Duration

	// BodyTimeout bounds how long a server's Read may wait for the next byte of
	// a request's body. All waits together may take BodyTimeout, plus a second
	// for each MinRate bytes received. Then Read fails with
	// os.ErrDeadlineExceeded; the client can still be answered.
	//
	// After Respond there is no bound: the two sides may be in a conversation,
	// in which either may be silent. BodyTimeout 0: no bound. MinRate 0: only
	// each single wait is bounded.
	BodyTimeout time.Duration
	MinRate     int

	// PingInterval is how long the peer may be silent before it gets a PING;
	// PingTimeout is how long it may take to answer. 0: 30s, 15s.
	PingInterval, PingTimeout time.Duration

	// MaxAge is how long the connection accepts new streams. MaxRequests is how
	// many a server's connection accepts. Then the connection closes as after
	// Retire or Shutdown. 0: no limit.
	MaxAge      time.Duration
	MaxRequests int

	// ExtendedConnect allows a server's clients to use CONNECT with a protocol
	// (RFC 8441), such as WebSocket.
	ExtendedConnect bool

	// Refused, if not nil, is called with the reason when a server refuses a
	// stream itself: a malformed request, or one too many. The goroutine that
	// reads the connection calls it, so it must not block.
	Refused func(err *Error)

	// Panicked, if not nil, is called with the value and the stack of a panic
	// in one of the connection's goroutines. The panic ends the exchange or the
	// connection.
	Panicked func(value any, stack []byte)

	// Wake, if not nil, allows a server's Serve to return ErrParked. It is called
	// when Serve must be called again although nothing has arrived. It may also be
	// called without need. It may be called from any goroutine, even inside a
	// method of the connection, so it must not block.
	Wake func()

	// Changed, if not nil, is called when a full client connection may have room
	// for a stream again, when it stops accepting streams, and when it closes. It
	// may be called from any goroutine, even inside Done or Abort, so it must not
	// block.
	Changed func()
}

// withDefaults returns o with defaults instead of zeros; maxStreams is the
// default of MaxStreams.
func (o Options) withDefaults(maxStreams int) Options {
	o.MaxStreams = cmp.Or(o.MaxStreams, maxStreams)
	o.MaxMemory = cmp.Or(o.MaxMemory, 1<<20)
	o.StreamMemory = cmp.Or(o.StreamMemory, 8<<10)
	o.MaxHeaderBytes = cmp.Or(o.MaxHeaderBytes, 64<<10)
	o.MaxFields = cmp.Or(o.MaxFields, 200)
	o.HeaderTimeout = cmp.Or(o.HeaderTimeout, 10*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, time.Minute)
	o.StallTimeout = cmp.Or(o.StallTimeout, time.Minute)
	o.PingInterval = cmp.Or(o.PingInterval, 30*time.Second)
	o.PingTimeout = cmp.Or(o.PingTimeout, 15*time.Second)
	return o
}
