package l7

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// Inform implements exchange.Front. HTTP/1.0 has no interim responses.
func (f *front1) Inform(r *message.Response) error {
	if f.request.Minor == 0 {
		return nil
	}
	b, err := http1.AppendResponse(f.out.Begin(), r, http1.Framing{})
	f.out.Keep(b)
	if err != nil {
		return err
	}
	return f.Flush()
}

// Respond implements exchange.Front.
func (f *front1) Respond(r *message.Response, end bool) error {
	if f.aborted.Load() {
		return errAborted
	}
	// The bytes after an unread body may be the rest of that body, and must not be
	// mistaken for a request.
	f.keep = f.whole.Load() && !f.request.Close && !f.conn.closing() && !f.last()
	framing := f.framing(r)
	if r.Status != 101 {
		framing.Close = !f.keep
		framing.KeepAlive = f.keep && f.request.Minor == 0
	}
	if r.Status == 426 && f.request.Minor > 0 {
		framing.Upgrade = r.Upgrade
	}
	b, err := http1.AppendResponse(f.out.Begin(), r, framing)
	f.out.Keep(b)
	if err != nil {
		return err
	}
	f.out.Frame(framing)
	f.conn.closeEndsBody.Store(framing.Body == http1.UntilClose || r.Status == 101)
	f.framed.Store(framing.Body == http1.Sized || framing.Body == http1.InChunks)
	if !end {
		return nil
	}
	f.ended = true
	return f.Flush()
}

// last reports whether this request is the connection's last, because the connection
// has reached its limit of requests or its maximum age.
func (f *front1) last() bool {
	return f.settings.maxRequests > 0 && f.requests >= f.settings.maxRequests ||
		f.age > 0 && f.server.clock.now.Load() >= f.began+f.age
}

// CloseAfter makes this request the last of its connection.
func (f *front1) CloseAfter() { f.request.Close = true }

// framing decides how the response says where its body ends.
func (f *front1) framing(r *message.Response) http1.Framing {
	switch {
	case r.Status == 101:
		f.keep = false
		f.body.StartUntilEnd()            // another protocol follows
		f.conn.upstreamWaitSince.Store(0) // in another protocol a FIN may be a half-close
		return http1.Framing{Upgrade: r.Upgrade}
	case r.Status == 204:
		return http1.Framing{}
	case f.request.Method == "HEAD" || r.Status == 304:
		if r.Declared >= 0 {
			return http1.Framing{Body: http1.Sized, Length: r.Declared}
		}
		return http1.Framing{}
	case r.Length >= 0:
		return http1.Framing{Body: http1.Sized, Length: r.Length}
	case f.request.Minor == 0:
		f.keep = false
		return http1.Framing{Body: http1.UntilClose}
	}
	return http1.Framing{Body: http1.InChunks}
}

// Write implements exchange.Front.
func (f *front1) Write(p []byte) error {
	if f.aborted.Load() {
		return errAborted
	}
	return f.out.WriteBody(p)
}

// Flush implements exchange.Front.
func (f *front1) Flush() error {
	if f.aborted.Load() {
		return errAborted
	}
	return f.out.Flush()
}

// End implements exchange.Front.
func (f *front1) End(trailer message.Fields) error {
	if f.aborted.Load() {
		return errAborted
	}
	err := f.out.EndBody(trailer)
	if f.ended = err == nil; f.ended {
		f.conn.closeEndsBody.Store(false)
	}
	return err
}

// Abort implements exchange.Front. The client sees a response that is cut off. If the framing
// does not show that, or no part of the response was sent, Abort resets the connection.
func (f *front1) Abort(error) {
	if f.aborted.Swap(true) {
		return
	}
	if f.framed.Load() {
		f.sock.Close()
		return
	}
	f.sock.Reset()
}

// lingerBytes bounds how much is read only to be discarded.
const lingerBytes = 64 << 20

// linger closes the connection after the client has received the response. Closing a
// socket with unread bytes resets it, and the reset might overtake the response. So
// linger reads, for some time, the bytes that the client still sends.
func (f *front1) linger() {
	if f.whole.Load() && len(f.in.Unread()) == 0 {
		f.nc.Close()
		return
	}
	if !f.body.UntilEnd() && f.out.CloseWrite() != nil || !f.conn.markIdle() {
		return
	}
	f.in.Drop()
	f.refused.Store(false)
	_ = f.conn.Conn.SetReadDeadline(time.Now().Add(abandonTime)) // fails only on a closed connection, and then reading fails too
	for n := 0; n < lingerBytes; {
		if f.sock.Fill() != nil {
			return
		}
		n += len(f.sock.Taken())
		f.sock.Release()
	}
}

// abandonTime is how long a client may keep sending an abandoned body once its
// response is complete.
const abandonTime = 5 * time.Second
