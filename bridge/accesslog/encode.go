package accesslog

import (
	"cmp"
	"strconv"
	"time"
)

// A Format is the format of a line.
type Format uint8

const (
	// JSON is one object per line. docs/access-log.md lists its keys.
	JSON Format = iota
	// Text begins like nginx's format "combined", followed by the other fields as
	// key=value.
	Text
)

// append appends a record as a line.
func (f Format) append(b []byte, r *Record) []byte {
	l := line{b: b, text: f == Text}
	if l.text {
		l.combined(r)
	} else {
		l.object(r)
	}
	l.rest(r)
	if !l.text {
		l.b = append(l.b, '}')
	}
	return append(l.b, '\n')
}

// A line is a line under construction.
type line struct {
	b    []byte
	text bool
}

// object writes, as JSON, the fields that the combined format writes in its own way.
func (l *line) object(r *Record) {
	l.b = append(l.b, `{"time":"`...)
	l.b = appendTime(l.b, r.Start)
	l.b = append(l.b, `","kind":"`...)
	l.b = append(l.b, r.Kind.String()...)
	l.b = append(l.b, '"')
	l.string("client", cmp.Or(r.Client, noAddress))
	l.string("method", r.Method)
	l.string("path", r.Path)
	l.string("protocol", r.Protocol)
	l.int("code", r.Code)
	l.string("user_agent", r.UserAgent)
	l.uint("bytes_to_client", r.ToClient)
}

// noAddress stands for a client of a unix-domain socket.
const noAddress = "unix:"

// combined writes nginx's format of that name. A field that a Record lacks is
// "-".
func (l *line) combined(r *Record) {
	l.b = appendEscaped(l.b, cmp.Or(r.Client, noAddress))
	l.b = append(l.b, " - - ["...)
	l.b = r.Start.UTC().AppendFormat(l.b, "02/Jan/2006:15:04:05 -0700")
	l.b = append(l.b, `] "`...)
	if r.Kind == Connection {
		l.b = append(l.b, "TCP"...)
	} else {
		l.b = appendEscaped(l.b, cmp.Or(r.Method, "-"))
		l.b = append(l.b, ' ')
		l.b = appendEscaped(l.b, cmp.Or(r.Path, "-"))
		l.b = append(l.b, ' ')
		l.b = appendEscaped(l.b, r.Protocol)
	}
	l.b = append(l.b, `" `...)
	if r.Code == 0 {
		l.b = append(l.b, '-')
	} else {
		l.b = strconv.AppendInt(l.b, int64(r.Code), 10)
	}
	l.b = append(l.b, ' ')
	l.b = strconv.AppendUint(l.b, r.ToClient, 10)
	l.b = append(l.b, ` "-" "`...)
	l.b = appendEscaped(l.b, cmp.Or(r.UserAgent, "-"))
	l.b = append(l.b, '"')
}

// rest writes the remaining fields, in the same order for both formats.
func (l *line) rest(r *Record) {
	l.string("listener", r.Listener)
	l.int("client_port", int(r.ClientPort))
	l.string("peer", r.Peer)
	l.string("request_id", r.RequestID)
	l.string("trace_id", r.TraceID)
	l.string("host", r.Host)
	l.string("upgrade", r.Upgrade)
	if r.GRPC {
		l.uint("grpc_status", uint64(max(r.GRPCStatus, 0)))
	}
	l.string("ended", r.Ended)
	l.string("reason", r.Reason)
	l.string("route", r.Route)
	l.string("upstream", r.Upstream)
	l.string("endpoint", r.Endpoint)
	l.string("upstream_protocol", r.UpstreamProtocol)
	l.int("attempts", r.Attempts)
	if r.Reused {
		l.bool("upstream_reused", true)
	}
	l.uint("bytes_from_client", r.FromClient)

	l.millis("duration_ms", max(r.Duration, 1))
	l.millis("handshake_ms", r.Handshake)
	l.millis("queued_ms", r.Queued)
	l.millis("upstream_connect_ms", r.Connect)
	l.millis("upstream_handshake_ms", r.UpstreamHandshake)
	l.millis("upstream_head_ms", r.UpstreamHead)
	l.millis("first_byte_ms", r.FirstByte)

	l.string("server_name", r.ServerName)
	if t := r.TLS; t != nil {
		l.string("tls_version", t.Version)
		l.string("tls_cipher", t.Suite)
		l.string("tls_group", t.Group)
		l.bool("tls_resumed", t.Resumed)
	}
	l.string("client_subject", r.Certificate.Subject)
	l.string("client_fingerprint", r.Certificate.SHA256Fingerprint)
	if t := r.UpstreamTLS; t != nil {
		l.string("upstream_tls_version", t.Version)
		l.string("upstream_tls_cipher", t.Suite)
		l.string("upstream_tls_group", t.Group)
		l.bool("upstream_tls_resumed", t.Resumed)
	}
}

// key starts a value.
func (l *line) key(name string) {
	if l.text {
		l.b = append(l.b, ' ')
		l.b = append(l.b, name...)
		l.b = append(l.b, '=')
		return
	}
	l.b = append(l.b, ',', '"')
	l.b = append(l.b, name...)
	l.b = append(l.b, '"', ':')
}

// string omits an empty value.
func (l *line) string(name, value string) {
	if value == "" {
		return
	}
	l.key(name)
	if l.text && isWord(value) {
		l.b = append(l.b, value...)
		return
	}
	l.b = append(l.b, '"')
	l.b = appendEscaped(l.b, value)
	l.b = append(l.b, '"')
}

func (l *line) uint(name string, n uint64) {
	l.key(name)
	l.b = strconv.AppendUint(l.b, n, 10)
}

// int omits 0.
func (l *line) int(name string, n int) {
	if n != 0 {
		l.key(name)
		l.b = strconv.AppendInt(l.b, int64(n), 10)
	}
}

func (l *line) bool(name string, is bool) {
	l.key(name)
	l.b = strconv.AppendBool(l.b, is)
}

// millis writes milliseconds with microsecond precision, and omits 0.
func (l *line) millis(name string, d time.Duration) {
	if d <= 0 {
		return
	}
	l.key(name)
	micro := uint64(d / time.Microsecond)
	l.b = strconv.AppendUint(l.b, micro/1000, 10)
	rest := micro % 1000
	l.b = append(l.b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// appendTime appends a time in RFC 3339 with milliseconds, in UTC.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = appendDigits(b, year, 4)
	b = appendDigits(append(b, '-'), int(month), 2)
	b = appendDigits(append(b, '-'), day, 2)
	b = appendDigits(append(b, 'T'), hour, 2)
	b = appendDigits(append(b, ':'), minute, 2)
	b = appendDigits(append(b, ':'), second, 2)
	b = appendDigits(append(b, '.'), t.Nanosecond()/1e6, 3)
	return append(b, 'Z')
}

// appendDigits appends n with the given number of digits, including leading
// zeros.
func appendDigits(b []byte, n, digits int) []byte {
	b = append(b, "0000"[:digits]...)
	for at := len(b) - 1; n > 0 && digits > 0; at, digits = at-1, digits-1 {
		b[at] = byte('0' + n%10)
		n /= 10
	}
	return b
}
