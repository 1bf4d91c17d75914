package wire

import (
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// TryWriteBody is WriteBody without the wait. It returns how much of p it has sent or
// holds; if that is less than all, the caller passes the rest next.
func (w *Writer) TryWriteBody(p []byte) (sent int, err error) {
	if w.framed == http1.Sized && int64(len(p)) > w.left {
		return 0, errLength
	}
	for sent < len(p) {
		n, err := w.tryWritePart(p[sent:])
		if w.framed == http1.Sized {
			w.left -= int64(n)
		}
		sent += n
		if n == 0 || err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// tryWritePart sends or holds the first bytes of p, as many as possible.
func (w *Writer) tryWritePart(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.chunkLeft == 0 && len(p) < direct && len(w.held)+len(p)+maxChunkLine <= maxGathered {
		if w.framed == http1.InChunks {
			w.Keep(http1.AppendChunk(w.Begin(), p))
		} else {
			w.held = append(w.Begin(), p...)
		}
		return len(p), nil
	}
	if w.framed == http1.InChunks && w.chunkLeft == 0 {
		w.chunkLeft = len(p)
		w.Keep(http1.AppendChunkSize(w.Begin(), len(p)))
	}
	if done, err := w.makeRoom(len(p)); !done || err != nil {
		return 0, err
	}
	if w.framed == http1.InChunks {
		p = p[:min(len(p), w.chunkLeft)]
	}
	n, err := w.trySend(p)
	if w.err = err; w.framed == http1.InChunks {
		w.chunkSent(n)
	}
	return n, err
}

// maxGathered is how many bytes of a body TryWriteBody holds so that they leave together.
// It is small, because the bodies of many requests may wait at the same time.
const maxGathered = 4 << 10

// chunkSent records that n bytes of the present chunk were sent.
func (w *Writer) chunkSent(n int) {
	if n == 0 {
		return
	}
	if w.chunkLeft -= n; w.chunkLeft == 0 {
		w.Keep(append(w.Begin(), http1.ChunkEnd...))
	}
}

// trySend sends p without waiting. TLS only encrypts it, so that the last part of a body
// leaves together with the end.
func (w *Writer) trySend(p []byte) (int, error) {
	if !w.tls {
		return w.sock.TryWrite(p)
	}
	if len(w.held) > 0 {
		if w.push(); w.err != nil {
			return 0, w.err
		}
	}
	if len(p) > maxRecords {
		w.sock.Expect(len(p)) // so that only a flush sends
	}
	return w.conn.Write(p)
}

// makeRoom makes room for n bytes of a body. With TLS, the bytes that w holds leave
// together with them.
func (w *Writer) makeRoom(n int) (done bool, err error) {
	switch {
	case !w.tls:
		return w.TryFlush()
	case w.roomSeen && w.sock.Held() > 0 && w.sock.Held()+len(w.held)+n <= maxRecords:
		return true, nil
	}
	return w.tryFlushRecords()
}

// maxRecords is how many encrypted bytes of a body are gathered while the kernel has
// room: a large record, or several small ones. More may wait for room, so it is small.
const maxRecords = 17 << 10

// tryFlushRecords sends the encrypted bytes without waiting. It reports true if no bytes
// are left and the kernel has room for more. Otherwise further bytes would fill a buffer
// of the gateway.
func (w *Writer) tryFlushRecords() (done bool, err error) {
	w.roomSeen = false
	if done, w.err = socket.RoomOf(w.sock).TryFlush(); !done || w.err != nil {
		return done, w.err
	}
	if w.roomSeen = socket.RoomOf(w.sock).Available(); !w.roomSeen {
		w.trim(w.held)
	}
	return w.roomSeen, nil
}

// TryFlush is Flush without the wait. It reports false if bytes are left that the kernel
// does not accept yet.
func (w *Writer) TryFlush() (done bool, err error) {
	if w.err != nil {
		w.Drop()
		return true, w.err
	}
	if w.tls && len(w.held) > 0 {
		if done, err := w.makeRoom(0); !done || err != nil {
			return done, err
		}
		if w.push(); w.err != nil {
			return true, w.err
		}
	}
	if len(w.held) == 0 {
		w.roomSeen = false
		done, w.err = socket.RoomOf(w.sock).TryFlush()
		return done, w.err
	}
	n, err := w.sock.TryWrite(w.held)
	if w.err = err; err != nil || n == len(w.held) {
		w.Drop()
		return true, err
	}
	w.trim(w.held[n:])
	return false, nil
}

// trim keeps rest, a part of the held bytes, in a buffer of its size.
func (w *Writer) trim(rest []byte) {
	if w.buf == nil || len(rest) > len(*w.buf) {
		w.held = rest
		return
	}
	w.buf = w.pool.Trim(w.buf, rest)
	w.held = (*w.buf)[:len(rest)]
}

// InFlow reports whether the writer is a side of a Flow.
func (w *Writer) InFlow() bool { return w.from != nil }
