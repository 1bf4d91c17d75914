package http2

import (
	"time"

	h2 "golang.org/x/net/http2"
)

// What a peer may do, and what it pays for it, is in the two tables of this file
// and nowhere else. Three budgets bound what a peer can cost. Frames spend from
// them; only what is of use fills them up again, and so does time. A frame that
// is of no use only ever spends.

// A budget is what a peer may cost before its connection is ended.
type budget struct {
	left, full int
	perSecond  int
	filled     int64 // when time was last added
}

// spend takes n off, and reports whether that much was left. now is in
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

// earn adds n, up to what is full.
func (b *budget) earn(n int) { b.left = min(b.left+n, b.full) }

// An account names one of an abuse's budgets.
type account uint8

const (
	// streamsAccount pays for streams that came to nothing by the peer's doing: it
	// reset them (CVE-2023-44487), made this side reset them (CVE-2025-8671), or
	// opened more than it may. A stream that both sides ended earns 1.
	streamsAccount account = iota

	// framesAccount pays for frames that carry nothing: PING, SETTINGS, PRIORITY,
	// WINDOW_UPDATE, empty DATA, unknown ones. Bodies and heads that either side
	// carries earn: windows and pings are part of carrying them.
	framesAccount

	// lateAccount pays for frames on streams that are over, or of which nobody
	// wants the rest. An honest peer sends some before it learns of that: at most
	// what the window was. It is large, and nothing but a stream that both sides
	// ended earns.
	lateAccount

	accounts
)

// An abuse is what a connection's peer may still cost. It is guarded by the
// connection's mu.
type abuse struct {
	budgets [accounts]budget
	cut     int // bytes that were sent in frames that the peer's window cut short
	now     func() int64
}

func newAbuse(now func() int64) abuse {
	return abuse{now: now, budgets: [accounts]budget{
		streamsAccount: {left: 500, full: 500, perSecond: 33},
		framesAccount:  {left: 10_000, full: 10_000, perSecond: 200},
		lateAccount:    {left: 50_000, full: 50_000, perSecond: 2000},
	}}
}

// spend takes cost off an account. It returns the connection's error if that is
// exhausted.
func (a *abuse) spend(from account, cost int) *Error {
	if a.budgets[from].spend(cost, a.now) {
		return nil
	}
	return broken(h2.ErrCodeEnhanceYourCalm, [accounts]string{
		streamsAccount: "too many streams that came to nothing",
		framesAccount:  "too many frames that carry nothing",
		lateAccount:    "too many frames on streams that are over",
	}[from])
}

// received earns for n bytes of a body that somebody wants.
func (a *abuse) received(n int) { a.budgets[framesAccount].earn(1 + n>>10) }

// sent earns for a DATA frame with n bytes that was sent. A frame that the peer's
// window cut short earns by its bytes alone: else a peer that opens its window by
// a byte at a time would pay for each WINDOW_UPDATE with the frame it asks for.
func (a *abuse) sent(n int, cutShort bool) {
	if !cutShort {
		a.budgets[framesAccount].earn(2 + n>>10)
		return
	}
	const each = 256
	a.cut += n
	a.budgets[framesAccount].earn(a.cut / each)
	a.cut %= each
}

// completed earns for a stream that both sides have ended.
func (a *abuse) completed() {
	a.budgets[streamsAccount].earn(1)
	a.budgets[lateAccount].earn(4)
}

// head earns for a head or trailer of use.
func (a *abuse) head() { a.budgets[framesAccount].earn(4) }

// A streamFrame is a kind of frame that belongs to a stream.
type streamFrame uint8

const (
	dataFrame      streamFrame = iota // that carries bytes or ends the stream
	emptyDataFrame                    // that does neither; padding is no use
	headersFrame
	priorityFrame
	resetFrame
	windowFrame
	streamFrames
)

// A streamState is what a stream is when a frame comes for it.
type streamState uint8

const (
	idleStream     streamState = iota // never opened, and not the peer's to open
	freshStream                       // never opened; the peer may
	openStream                        // the peer sends, and somebody wants it
	unwantedStream                    // the peer sends, and nobody wants it
	endedStream                       // a request that has come whole
	answeredStream                    // a response that has come whole
	resetStream                       // this side reset it, and the peer may not know yet
	closedStream                      // any other that is over
	beyondStream                      // above the last stream of a GOAWAY
	streamStates
)

// A verdict is what is done with a frame.
type verdict uint8

const (
	process verdict = iota
	ignore
	refuse // reset the stream with code; that spends 1 of streamsAccount
	fatal  // end the connection with code
)

// A rule says what is done with a frame, and what it spends.
type rule struct {
	verdict verdict
	code    h2.ErrCode
	from    account
	cost    int
	reason  string
}

func pays(from account, cost int) rule { return rule{verdict: process, from: from, cost: cost} }
func late(cost int) rule               { return rule{verdict: ignore, from: lateAccount, cost: cost} }

func refused(code h2.ErrCode, reason string) rule {
	return rule{verdict: refuse, code: code, reason: reason}
}

func violates(code h2.ErrCode, reason string) rule {
	return rule{verdict: fatal, code: code, reason: reason}
}

// streamRules has the frames of streams. Of the frames that are processed those of
// openStream earn if they turn out to be good: dataFrame by received, headersFrame
// by head; headersFrame of freshStream too.
var streamRules = func() (t [streamFrames][streamStates]rule) {
	protocol := func(what string) rule { return violates(h2.ErrCodeProtocol, what) }
	free := pays(framesAccount, 0)
	for f, name := range [streamFrames]string{dataFrame: "DATA", emptyDataFrame: "DATA", resetFrame: "RST_STREAM", windowFrame: "WINDOW_UPDATE"} {
		t[f][idleStream] = protocol(name + " on a stream that was never opened")
		t[f][freshStream] = t[f][idleStream]
	}
	data := [streamStates]rule{
		idleStream: t[dataFrame][idleStream], freshStream: t[dataFrame][freshStream],
		openStream:     free,
		unwantedStream: pays(lateAccount, 1), // it is processed for its END_STREAM
		endedStream:    refused(h2.ErrCodeStreamClosed, "DATA after the end of the stream"),
		answeredStream: refused(h2.ErrCodeStreamClosed, "DATA after the end of the stream"),
		resetStream:    late(1),
		closedStream:   refused(h2.ErrCodeStreamClosed, "DATA on a closed stream"),
		beyondStream:   late(1),
	}
	t[dataFrame], t[emptyDataFrame] = data, data
	t[emptyDataFrame][openStream] = pays(framesAccount, 1)
	t[headersFrame] = [streamStates]rule{
		idleStream:     protocol("HEADERS on a stream that the peer cannot open"),
		freshStream:    free, // what comes of the stream counts
		openStream:     free,
		unwantedStream: pays(lateAccount, 4), // likewise
		endedStream:    refused(h2.ErrCodeStreamClosed, "HEADERS after the end of the stream"),
		answeredStream: refused(h2.ErrCodeStreamClosed, "HEADERS after the end of the stream"),
		resetStream:    late(4),
		closedStream:   violates(h2.ErrCodeStreamClosed, "HEADERS on a closed stream"),
		beyondStream:   refused(h2.ErrCodeRefusedStream, "a stream above the last one that was announced"),
	}
	for s := range streamStates {
		t[priorityFrame][s] = pays(framesAccount, 1)
	}
	for s := openStream; s < streamStates; s++ {
		switch s {
		case openStream, unwantedStream, endedStream:
			t[resetFrame][s], t[windowFrame][s] = pays(streamsAccount, 1), pays(framesAccount, 1)
		case answeredStream: // a server that needs no more of the request says so
			t[resetFrame][s], t[windowFrame][s] = free, pays(framesAccount, 1)
		default:
			t[resetFrame][s], t[windowFrame][s] = late(1), late(1)
		}
	}
	return t
}()

// connFrameCosts are what frames of the connection itself spend of framesAccount.
// All are processed.
var connFrameCosts = map[h2.FrameType]int{
	h2.FrameSettings:     1, // and 1 for each setting, see streamsPerCost; an acknowledgement is free
	h2.FramePing:         1, // an answer to one too
	h2.FrameGoAway:       1,
	h2.FrameWindowUpdate: 1,
	h2.FramePriority:     1,
}

// streamsPerCost is how many streams, whose windows an INITIAL_WINDOW_SIZE changes,
// cost 1 more.
const streamsPerCost = 16

// unknownFrameCost is that of a frame that is none of RFC 9113's.
const unknownFrameCost = 1

// stateOf returns what a stream is, and the stream if it is one of c.streams.
// c.mu is held.
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

// judge looks a frame up and takes what it costs. It returns the stream if the
// frame is to be processed, and else the stream's fault or the connection's.
// c.mu is held.
func (c *conn) judge(f streamFrame, id uint32) (s *stream, v verdict, why, end *Error) {
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

// A resetLog has the latest streams that this side reset.
type resetLog struct {
	ids  []uint32
	next int // where in ids the next one goes, once it is full
}

// rememberedResets is how many streams a resetLog has: as many as a client may
// have had open.
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
