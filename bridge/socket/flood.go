package socket

import "time"

const (
	// SmallRead is the size below which a read costs more than its bytes are worth. In
	// TLS 1.3, a record with one byte of data has 23 bytes.
	SmallRead = 64

	// smallReads is the number of small reads that a peer may cause without an answer,
	// and the number that each second adds.
	smallReads = 2000

	// FloodPause is the pause between reads from a peer that causes more small reads.
	// One read then takes all bytes that arrived during the pause.
	FloodPause = 20 * time.Millisecond

	// largeRead is the size of a read that shows that a peer sends in larger pieces again.
	largeRead = 16 << 10
)

// A FloodMeter detects a peer that sends its bytes one by one, without waiting for an
// answer. Each byte costs two system calls and a wake-up. Keystrokes are far slower, and
// messages of a conversation have answers. The zero value is ready to use.
type FloodMeter struct {
	spent    int           // small reads since the last answer or refill
	flooding bool          // reads pause, because the peer sends too many small pieces
	refilled time.Duration // when spent was last refilled
}

// Answered records that bytes were sent to the peer.
func (f *FloodMeter) Answered() { f.spent, f.flooding = 0, false }

// Read records a read of n bytes at the given time. It reports whether to pause before the
// next read.
func (f *FloodMeter) Read(n int, now time.Duration) (pause bool) {
	if n >= SmallRead {
		f.flooding = f.flooding && n < largeRead // the bytes arrived in many pieces during the pause
		return f.flooding
	}
	f.flooding = false // the peer has slowed down
	if f.spent++; f.spent <= smallReads {
		return false
	}
	f.spent -= min(int((now-f.refilled).Seconds()*smallReads), smallReads)
	f.refilled = now
	f.flooding = f.spent > smallReads
	return f.flooding
}

// meter records a read of the stream, for the next Fill. w writes to the same peer.
func (in *stream) meter(w *sender) {
	if w.wrote.Load() {
		w.wrote.Store(false)
		in.flood.Answered()
	}
	if in.n < SmallRead || in.flood.flooding {
		in.pause = in.flood.Read(in.n, time.Duration(time.Now().UnixNano()))
	}
}
