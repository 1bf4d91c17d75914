package exchange

import (
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Log holds the facts about an exchange for the access log and the
// histograms.
type Log struct {
	Attempts int             // attempts to get a connection
	Dial     *accesslog.Dial // the dial of the last connection; nil: no connection, or not Shared.Detailed
	Protocol string          // the protocol of the last connection
	Reused   bool            // the last connection existed before the request
	Head     time.Duration   // from getting the connection until the response's head; 0: no head arrived

	Queued    time.Duration // time spent waiting for an endpoint
	Connect   time.Duration // time spent connecting, in all attempts together
	Handshake time.Duration // time spent in handshakes, in all attempts together

	FromClient, ToClient uint64 // bytes of bodies

	Upgraded bool
	Ended    string       // how an upgraded connection ended
	Reason   certs.Reason // why the request failed upstream
	Status   int          // the gRPC status, if the client expects one

	got time.Duration // from the start until the last connection; 0: too short to measure
}

// dialed adds the time that a dial took.
func (l *Log) dialed(d *accesslog.Dial) {
	l.Connect += d.Connect
	l.Handshake += d.Handshake
}

// sinceStart returns the time since the exchange began, if it is recorded.
func (t *attempts) sinceStart() time.Duration {
	if !t.x.shared.Detailed {
		return 0
	}
	return time.Since(t.x.Start)
}

// connected records the connection of the exchange. asked is when the exchange
// requested it.
func (t *attempts) connected(g *BackInfo, asked time.Duration) {
	l := &t.x.Log
	if !g.Reused || l.Attempts > 1 || l.Queued > 0 {
		l.got = time.Since(t.x.Start)
	}
	if !t.x.shared.Detailed {
		return
	}
	l.Dial, l.Protocol = g.Dial, g.Protocol
	l.Reused = g.Dial.At.Sub(t.x.Start) < asked
	if !l.Reused {
		l.dialed(g.Dial)
	}
}

// recordHead records that the response's head has arrived.
func (t *attempts) recordHead() {
	t.x.Log.Head = time.Since(t.x.Start) - t.x.Log.got
	t.endpoint.NoteHead(t.x.Log.Head)
}

// recordStatus records the status of a gRPC call, if f contains it.
func (x *Exchange) recordStatus(f message.Fields) {
	if !x.GRPC {
		return
	}
	if text, ok := f.Get("Grpc-Status"); ok {
		if code, err := strconv.ParseUint(text, 10, 16); err == nil {
			x.Log.Status = int(code)
		}
	}
}
