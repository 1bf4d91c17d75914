package message

// A BodyReader reads a received body.
type BodyReader interface {
	// Read waits for bytes of the body and returns a view of them, valid until
	// the next Read or Buffered. At the end of the body it returns io.EOF. Any
	// other error means that the body is incomplete.
	Read() ([]byte, error)

	// Buffered reports whether Read would return without waiting: there are
	// bytes, or the body has ended.
	Buffered() bool

	// Trailer returns the trailer fields, once Read has returned io.EOF.
	Trailer() Fields
}

// A BodyWriter sends a body.
type BodyWriter interface {
	// Write sends bytes of the body. It does not keep p. The bytes may wait for
	// Flush or End. It blocks while the peer does not read.
	Write(p []byte) error

	// Flush sends everything queued.
	Flush() error

	// End completes the body, with an optional trailer, and sends everything queued.
	End(trailer Fields) error
}
