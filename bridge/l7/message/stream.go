package message

// A BodyReader is a body that arrives.
type BodyReader interface {
	// Read waits for bytes of the body and returns them: a view that is valid
	// until the next Read or Buffered. At the body's end it returns io.EOF. Any
	// other error ends the body too, which is not whole then.
	Read() ([]byte, error)

	// Buffered reports whether Read would return without waiting: there are
	// bytes, or the end is known.
	Buffered() bool

	// Trailer returns the trailer fields, once Read has returned io.EOF.
	Trailer() Fields
}

// A BodyWriter is a body that is sent.
type BodyWriter interface {
	// Write sends bytes of the body. They are the caller's again when it
	// returns, and may wait for Flush or End. It blocks while the peer reads
	// nothing.
	Write(p []byte) error

	// Flush sends whatever still waits.
	Flush() error

	// End completes the body, and sends everything.
	End(trailer Fields) error
}
