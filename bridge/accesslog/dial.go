package accesslog

import "time"

// A Dial describes a dial of an endpoint, successful or not. It is immutable.
type Dial struct {
	At                 time.Time // when the dial ended
	Connect, Handshake time.Duration
	TLS                *TLS // nil: plaintext
}
