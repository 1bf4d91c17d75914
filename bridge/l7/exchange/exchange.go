package exchange

import (
	"cmp"
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// Shared holds what the exchanges of one listener share.
type Shared struct {
	Context context.Context // ends when the listener stops waiting for requests
	Log     hclog.Logger
	Clock   Clock
	Splices *splice.Source // the engine that carries upgraded connections

	// FromClient and ToClient count the bytes of spliced connections.
	FromClient, ToClient *atomic.Uint64

	// ResponseTimeout bounds the wait for a response's head where a Plan sets no
	// Timeout, counted from when all of the request was sent. gRPC calls have no
	// such limit: a stream may begin with its first message at any time, and gRPC
	// clients set deadlines. 0: five minutes.
	ResponseTimeout time.Duration

	// Detailed records how connections to endpoints were made, for an access log.
	Detailed bool

	failures failureLog
	keeper   keeper
	replays  sync.Pool // holds *replay
}

// responseTimeout is ResponseTimeout, or its default.
func (s *Shared) responseTimeout() time.Duration { return cmp.Or(s.ResponseTimeout, 5*time.Minute) }

// logPanic logs a panic that occurred while serving a client.
func (s *Shared) logPanic(client string, value any, stack []byte) {
	s.Log.Error("panic while serving a request", "client", client, "panic", value, "stack", string(stack))
}

// ErrPanic ends an exchange in which the gateway's own code panicked.
var ErrPanic = errors.New("panic while serving the request")

// Each goroutine that serves x defers guard, except the one that handles x. guard
// limits a panic to the exchange.
func (x *Exchange) guard() {
	if p := recover(); p != nil {
		x.shared.logPanic(x.Facts.Client, p, debug.Stack())
		x.upload.replay.fail(ErrPanic)
		x.cancel.fail(ErrPanic)
		x.front.Abort(ErrPanic)
	}
}

// LimitKept bounds the total size of the bodies that are kept for resending; by default
// 64 MiB. It is called before the first exchange.
func (s *Shared) LimitKept(most int64) { s.keeper.most = most }

// Kept returns how many bytes of bodies are kept for resending.
func (s *Shared) Kept() int64 { return s.keeper.held.Load() }

// A Clock gives the time without a system call.
type Clock interface {
	Now() int64               // nanoseconds; only differences mean anything
	Date() string             // the value of the Date field
	KeepWithin(time.Duration) // makes the clock precise enough for a limit
}

// Rules are the settings of a route and its listener for an exchange.
type Rules struct {
	Response       *policy.HeaderRules // applied to every response but the gateway's own errors
	Protected      policy.Protected    // fields that the request's trailer cannot set
	RequestIDField string              // the response's field for the request ID, or ""
	MaxBody        int64               // maximum size of the request's body; 0: no limit
}

// An Exchange is one request and its response. It runs between a Front and a Back,
// and knows the protocol of neither.
//
// Begin prepares it for a request. It is reused for the next request if Reset
// reports that nothing refers to it any more.
type Exchange struct {
	Facts policy.Facts // the facts about the request
	Rules Rules
	Start time.Time
	Log   Log // for the access log and the histograms

	GRPC            bool   // the client expects a gRPC status
	ExpectsContinue bool   // the client waits for 100 (Continue)
	WebSocketKey    string // the key for a WebSocket that an HTTP/2 client requests, else ""

	// Uncount removes the request from the listener's limits. It is called before
	// the client gets the end of the response, because the client may send its
	// next request right after.
	Uncount func()

	// TunnelEnded is called in a new goroutine when an upgraded connection has ended, if
	// Forward has returned true. Nothing uses the exchange afterward.
	TunnelEnded func()

	shared       *Shared
	front        Front
	response     message.Response // the latest response head
	code         int              // status code of the final response; 0: it has not begun
	aborted      bool
	responded    atomic.Bool // the head of the forwarded response was passed to the front
	relaysCall   atomic.Bool // the forwarded response belongs to a gRPC call; set before responded
	timerPending bool        // a timer may still run, so the exchange is not used again

	cancel    canceller
	deadlines deadlines
	stall     stall
	upload    upload
	try       attempts
}

// Init prepares a new Exchange. It is called once.
func (x *Exchange) Init(s *Shared) {
	x.shared = s
	x.cancel.init(s.Context)
	x.deadlines.init(x)
	x.stall.init(x)
	x.upload.init(x)
	x.try.init(x)
}

// Begin begins the exchange of a request from f.
func (x *Exchange) Begin(f Front, r *message.Request, c *policy.Connection) {
	x.front = f
	x.Facts.Begin(r, c)
	x.Start = time.Now()
}

// Reset clears the finished request, except for the parts that the next one
// reuses. It reports false if a timer may still refer to the exchange.
func (x *Exchange) Reset() bool {
	if x.timerPending || x.stall.pending {
		return false
	}
	fields := x.response.Fields
	clear(fields[:cap(fields)])
	x.response = message.Response{Fields: fields[:0]}
	x.Facts.Reset()
	x.Rules, x.Log, x.Start = Rules{}, Log{}, time.Time{}
	x.GRPC, x.ExpectsContinue, x.WebSocketKey = false, false, ""
	x.front, x.code, x.aborted = nil, 0, false
	x.responded.Store(false)
	x.relaysCall.Store(false)
	x.cancel.reset()
	x.deadlines.reset()
	x.stall.reset()
	x.upload.reset()
	x.try.reset()
	return true
}

// Leave releases the exchange's place at its upstream after a panic.
func (x *Exchange) Leave() { x.try.leave() }

// Cancel ends the exchange because of cause.
func (x *Exchange) Cancel(cause error) { x.cancel.fail(cause) }

// Code returns the status code of the final response; 0 if it did not begin.
func (x *Exchange) Code() int { return x.code }

// Aborted reports whether the client did not get a whole response.
func (x *Exchange) Aborted() bool { return x.aborted }

// Cause returns the error that ended the exchange early, or nil.
func (x *Exchange) Cause() error { return x.cancel.reason() }

// RanOut reports whether the time for the whole exchange ran out.
func (x *Exchange) RanOut() bool { return x.cancel.ranOut() }

// Tries returns how many tries were begun.
func (x *Exchange) Tries() int { return x.try.count }
