package policy

import (
	"encoding/hex"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// Names of W3C Trace Context, level 1.
const (
	traceparent = "traceparent"
	tracestate  = "tracestate"
)

// traceIDLength is how many digits a trace ID has.
const traceIDLength = 32

// BeginTrace begins a trace if the request has no valid traceparent. It then
// removes a tracestate, which belongs to no trace (section 3.3.1).
func BeginTrace(f *message.Fields, random *Entropy) {
	if TraceID(*f) != "" {
		return
	}
	f.RemoveFunc(isTrace)
	var id [24]byte
	random.Read(id[:])
	id[0] |= 1 // an ID of zeros alone is invalid
	id[16] |= 1
	const layout = "00-tttttttttttttttttttttttttttttttt-pppppppppppppppp-01"
	var b [len(layout)]byte
	copy(b[:], layout)
	hex.Encode(b[3:], id[:16])
	hex.Encode(b[3+traceIDLength+1:], id[16:])
	// Set the sampled flag, because servers that let the parent decide would otherwise
	// never record a trace that begins here.
	f.Add(traceparent, string(b[:]))
}

func isTrace(f message.Field) bool {
	return message.EqualFold(f.Name, traceparent) || message.EqualFold(f.Name, tracestate)
}

// TraceID returns the ID of the trace that a request belongs to; "" if it has no
// valid traceparent.
func TraceID(f message.Fields) string {
	given, ok := f.Get(traceparent)
	if !ok || !isTraceparent(given) || f.Count(traceparent) > 1 {
		return ""
	}
	return given[3 : 3+traceIDLength]
}

// isTraceparent reports whether s is a traceparent (section 3.2) of version 0 or a
// later version, which begins the same way.
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
