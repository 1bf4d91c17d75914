// Package message holds HTTP requests and responses in a form that does not
// depend on the protocol version.
//
// Its types are plain values whose strings are substrings of the received head.
// The caller that fills in a value owns it and may reuse its Fields for the
// next message. The package does no I/O and no parsing: bridge/l7/http1 and
// bridge/l7/http2 do that.
package message
