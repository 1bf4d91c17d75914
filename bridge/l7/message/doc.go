// Package message says what an HTTP request and a response are, whichever
// version of the protocol carries them.
//
// Its types hold substrings of what arrived and are plain values: who fills one
// in owns it, and may reuse its Fields for the next message. Nothing here reads
// or writes; bridge/l7/http1 and bridge/l7/http2 do.
package message
