package l7

import (
	"encoding/hex"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// Names of W3C Trace Context, level 1.
const (
	traceparent = "traceparent"
	tracestate  = "tracestate"
)

// traceIDLength is how many digits a trace id has.
const traceIDLength = 32

// makeTrace sees to it that the request has a good traceparent, if the table asks
// for that. Without one it begins a trace: what came as tracestate belongs to
// none then, and goes (section 3.3.1).
func (x *exchange) makeTrace() {
	if !x.table.MakeTrace || x.traceID() != "" {
		return
	}
	f := &x.request.Fields
	f.RemoveFunc(isTrace)
	var random [24]byte
	x.server.entropy.read(random[:])
	random[0] |= 1 // an id of zeros alone is none
	random[16] |= 1
	const layout = "00-tttttttttttttttttttttttttttttttt-pppppppppppppppp-01"
	var b [len(layout)]byte
	copy(b[:], layout)
	hex.Encode(b[3:], random[:16])
	hex.Encode(b[3+traceIDLength+1:], random[16:])
	// Sampled: of what a client's own tracer would begin here, servers that ask
	// the parent whether to record would else record nothing.
	f.Add(traceparent, string(b[:]))
}

func isTrace(f message.Field) bool {
	return message.EqualFold(f.Name, traceparent) || message.EqualFold(f.Name, tracestate)
}

// traceID returns the id of the trace that the request is part of; "" if it has
// no good traceparent.
func (x *exchange) traceID() string {
	given, ok := x.request.Fields.Get(traceparent)
	if !ok || !isTraceparent(given) || x.request.Fields.Count(traceparent) > 1 {
		return ""
	}
	return given[3 : 3+traceIDLength]
}

// isTraceparent reports whether s is a traceparent (section 3.2), of version 0 or
// one to come: those begin as it does.
func isTraceparent(s string) bool {
	const length = len("00-") + traceIDLength + len("-0123456789abcdef-00")
	if len(s) < length || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:55]
	switch {
	case !isLowerHex(version) || version == "ff", !isLowerHex(flags),
		!isLowerHex(trace) || isZeros(trace), !isLowerHex(parent) || isZeros(parent):
		return false
	case version == "00":
		return len(s) == length
	}
	return len(s) == length || s[length] == '-'
}

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isZeros(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}
