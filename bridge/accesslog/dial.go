package accesslog

import "time"

// A Dial says how a connection to an endpoint was made, or could not be. It is
// immutable.
type Dial struct {
	At                 time.Time // when that was done
	Connect, Handshake time.Duration
	TLS                *TLS // nil: plaintext
}
