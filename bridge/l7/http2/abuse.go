package http2

import (
	"time"

	h2 "golang.org/x/net/http2"
)

// The two tables in this file say what a peer may do and what it costs. Three
// budgets bound the total cost. Every frame spends from them. Only useful work
// and time refill them.

// A budget bounds one kind of cost; when it is exhausted, the connection ends.
type budget struct {
	left, full int
	perSecond  int
	filled     int64 // when the budget was last refilled for elapsed time
}

// spend subtracts n and reports whether the budget covers it. now returns
// nanoseconds.
func (b *budget) spend(n int, now func() int64) bool {
	if b.left -= n; b.left >= 0 {
		return true
	}
	t := now()
	b.earn(int(float64(t-b.filled) / float64(time.Second) * float64(b.perSecond)))
	b.filled = t
	return b.left >= 0
}

// earn adds n, up to full.
func (b *budget) earn(n int) { b.left = min(b.left+n, b.full) }

// An account names one of the budgets.
type account uint8

const (
	// streamsAccount pays for streams that the peer wasted: it reset them
	// (CVE-2023-44487), made this side reset them (CVE-2025-8671), or opened
	// more than allowed. A stream that both sides ended earns 1.
	streamsAccount account = iota

	// framesAccount pays for frames that carry nothing: PING, SETTINGS,
	// PRIORITY, WINDOW_UPDATE, empty DATA, unknown frames. Heads and bodies
	// earn, in either direction, because window updates and pings are part of
	// carrying them.
	framesAccount

	// lateAccount pays for frames on closed streams and on streams whose body
	// is no longer wanted. An honest peer sends up to a full window of them
	// before it learns that the stream is over. So the budget is large, and
	// only a stream that both sides ended earns.
	lateAccount

	accounts
)

// An abuse holds the budgets of a connection's peer. It is guarded by the
// connection's mu.
type abuse struct {
	budgets  [accounts]budget
	cutBytes int // bytes sent in frames that the peer's window cut short, not yet earned
	now      func() int64
}

func newAbuse(now func() int64) abuse {
	return abuse{now: now, budgets: [accounts]budget{
		streamsAccount: {left: 500, full: 500, perSecond: 33},
		framesAccount:  {left: 10_000, full: 10_000, perSecond: 200},
		lateAccount:    {left: 50_000, full: 50_000, perSecond: 2000},
	}}
}

// spend subtracts cost from an account. It returns a connection error if the
// account is exhausted.
func (a *abuse) spend(from account, cost int) *Error {
	if a.budgets[from].spend(cost, a.now) {
		return nil
	}
	return broken(h2.ErrCodeEnhanceYourCalm, [accounts]string{
		streamsAccount: "too many streams that were reset or refused",
		framesAccount:  "too many frames without content",
		lateAccount:    "too many frames on closed streams",
	}[from])
}

// received earns for n bytes of a wanted body.
func (a *abuse) received(n int) { a.budgets[framesAccount].earn(1 + n>>10) }

// sent earns for a sent DATA frame with n bytes. A frame that the peer's window
// cut short earns only for its bytes. Otherwise a peer that opens its window
// one byte at a time would pay for each WINDOW_UPDATE with the frame it causes.
func (a *abuse) sent(n int, cutShort bool) {
	if !cutShort {
		a.budgets[framesAccount].earn(2 + n>>10)
		return
	}
	const each = 256
	a.cutBytes += n
	a.budgets[framesAccount].earn(a.cutBytes / each)
	a.cutBytes %= each
}

// completed earns for a stream that both sides have ended.
func (a *abuse) completed() {
	a.budgets[streamsAccount].earn(1)
	a.budgets[lateAccount].earn(4)
}

// head earns for a useful head or trailer.
func (a *abuse) head() { a.budgets[framesAccount].earn(4) }

// A streamFrame is a kind of frame that belongs to a stream.
type streamFrame uint8

const (
	dataFrame      streamFrame = iota // carries bytes or ends the stream
	emptyDataFrame                    // does neither; padding does not count
	headersFrame
	priorityFrame
	resetFrame
	windowFrame
	streamFrames
)

// A streamState is the state of a stream when a frame for it arrives.
type streamState uint8

const (
	idleStream     streamState = iota // never opened; the peer may not open it
	freshStream                       // never opened; the peer may open it
	openStream                        // the peer is sending a message
	unwantedStream                    // the peer is sending a message that is no longer wanted
	endedStream                       // the request is complete
	answeredStream                    // the response is complete
	resetStream                       // this side reset it; the peer may not know yet
	closedStream                      // over for any other reason
	beyondStream                      // above the last stream of a GOAWAY
	streamStates
)

// A verdict says how to handle a frame.
type verdict uint8

const (
	process verdict = iota
	ignore
	refuse // reset the stream with code; that spends 1 of streamsAccount, see malformedCost
	fatal  // end the connection with code
)

// A rule says how to handle a frame, and what it costs.
type rule struct {
	verdict verdict
	code    h2.ErrCode
	from    account
	cost    int
	reason  string
}

func charge(from account, cost int) rule { return rule{verdict: process, from: from, cost: cost} }
func ignoreLate(cost int) rule           { return rule{verdict: ignore, from: lateAccount, cost: cost} }

func refused(code h2.ErrCode, reason string) rule {
	return rule{verdict: refuse, code: code, reason: reason}
}

func violates(code h2.ErrCode, reason string) rule {
	return rule{verdict: fatal, code: code, reason: reason}
}

// streamRules has the rule for each stream frame in each stream state. A valid
// frame with verdict process earns on an openStream: a dataFrame by received, a
// headersFrame by head. So does a headersFrame on a freshStream.
var streamRules = func() (t [streamFrames][streamStates]rule) {
	protocol := func(what string) rule { return violates(h2.ErrCodeProtocol, what) }
	free := charge(framesAccount, 0)
	for f, name := range [streamFrames]string{dataFrame: "DATA", emptyDataFrame: "DATA", resetFrame: "RST_STREAM", windowFrame: "WINDOW_UPDATE"} {
		t[f][idleStream] = protocol(name + " on a stream that was never opened")
		t[f][freshStream] = t[f][idleStream]
	}
	data := [streamStates]rule{
		idleStream: t[dataFrame][idleStream], freshStream: t[dataFrame][freshStream],
		openStream:     free,
		unwantedStream: charge(lateAccount, 1), // processed only for END_STREAM
		endedStream:    refused(h2.ErrCodeStreamClosed, "DATA after the end of the stream"),
		answeredStream: refused(h2.ErrCodeStreamClosed, "DATA after the end of the stream"),
		resetStream:    ignoreLate(1),
		closedStream:   refused(h2.ErrCodeStreamClosed, "DATA on a closed stream"),
		beyondStream:   ignoreLate(1),
	}
	t[dataFrame], t[emptyDataFrame] = data, data
	t[emptyDataFrame][openStream] = charge(framesAccount, 1)
	t[headersFrame] = [streamStates]rule{
		idleStream:     protocol("HEADERS on a stream that the peer cannot open"),
		freshStream:    free, // the outcome of the stream counts
		openStream:     free,
		unwantedStream: charge(lateAccount, 4), // processed only for END_STREAM
		endedStream:    refused(h2.ErrCodeStreamClosed, "HEADERS after the end of the stream"),
		answeredStream: refused(h2.ErrCodeStreamClosed, "HEADERS after the end of the stream"),
		resetStream:    ignoreLate(4),
		closedStream:   violates(h2.ErrCodeStreamClosed, "HEADERS on a closed stream"),
		beyondStream:   refused(h2.ErrCodeRefusedStream, "a stream above the last one announced in GOAWAY"),
	}
	for s := range streamStates {
		t[priorityFrame][s] = charge(framesAccount, 1)
	}
	for s := openStream; s < streamStates; s++ {
		switch s {
		case openStream, unwantedStream, endedStream:
			t[resetFrame][s], t[windowFrame][s] = charge(streamsAccount, 1), charge(framesAccount, 1)
		case answeredStream: // a server resets the stream when it does not need the rest of the request
			t[resetFrame][s], t[windowFrame][s] = free, charge(framesAccount, 1)
		default:
			t[resetFrame][s], t[windowFrame][s] = ignoreLate(1), ignoreLate(1)
		}
	}
	return t
}()

// connFrameCosts holds the costs of connection frames, which framesAccount
// pays. Every such frame is processed.
var connFrameCosts = map[h2.FrameType]int{
	h2.FrameSettings:     1, // plus 1 for each setting, see streamsPerCost; acknowledgments are free
	h2.FramePing:         1, // acknowledgments included
	h2.FrameGoAway:       1,
	h2.FrameWindowUpdate: 1,
	h2.FramePriority:     1,
}

// streamsPerCost is the number of open streams for which a change of
// INITIAL_WINDOW_SIZE costs 1 more.
const streamsPerCost = 16

// malformedCost is the cost of a malformed request. A client may open too many
// streams by mistake, but it does not send malformed requests by mistake. A
// malformed response costs 1, because other requests share its connection.
const malformedCost = 5

// unknownFrameCost is the cost of a frame type that RFC 9113 does not define.
const unknownFrameCost = 1

// stateOf returns the state of a stream, and the stream itself if it is in
// c.streams. c.mu is held.
func (c *conn) stateOf(id uint32) (*stream, streamState) {
	s := c.streams[id]
	switch {
	case s != nil && s.recvEnd && s.client != nil:
		return s, answeredStream
	case s != nil && s.recvEnd:
		return s, endedStream
	case s != nil && (s.refused || s.readErr != nil):
		return s, unwantedStream
	case s != nil:
		return s, openStream
	case id%2 == 0:
		return nil, idleStream
	case id > c.lastID && c.client != nil:
		return nil, idleStream
	case id > c.lastID && !c.server.announced && c.err == nil:
		return nil, freshStream
	case c.resets.has(id):
		return nil, resetStream
	case id > c.lastID:
		return nil, beyondStream
	}
	return nil, closedStream
}

// checkFrame applies the rule for a frame and charges its cost. It returns the
// stream if the frame must be processed, and otherwise the error of the stream
// or of the connection. c.mu is held.
func (c *conn) checkFrame(f streamFrame, id uint32) (s *stream, v verdict, streamErr, end *Error) {
	s, state := c.stateOf(id)
	r := &streamRules[f][state]
	if r.cost > 0 {
		if end = c.abuse.spend(r.from, r.cost); end != nil {
			return nil, fatal, nil, end
		}
	}
	switch r.verdict {
	case refuse:
		return s, refuse, &Error{Code: r.code, Reason: r.reason}, nil
	case fatal:
		return nil, fatal, nil, broken(r.code, r.reason)
	}
	return s, r.verdict, nil, nil
}

// A resetLog holds the IDs of the streams that this side reset most recently.
type resetLog struct {
	ids  []uint32
	next int // index of the next ID to overwrite, once ids is full
}

// rememberedResets is the size of a resetLog: as many streams as a client may
// have open.
const rememberedResets = 256

func (l *resetLog) add(id uint32) {
	if len(l.ids) < rememberedResets {
		l.ids = append(l.ids, id)
		return
	}
	l.ids[l.next] = id
	l.next = (l.next + 1) % rememberedResets
}

func (l *resetLog) has(id uint32) bool {
	for i := len(l.ids) - 1; i >= 0; i-- {
		if l.ids[i] == id {
			return true
		}
	}
	return false
}
