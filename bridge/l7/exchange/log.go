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
	Dial     *accesslog.Dial // of the last connection; nil: none, or not Shared.Detailed
	Protocol string          // of that connection
	Reused   bool            // it existed before the request
	Head     time.Duration   // from getting it until the response's head came; 0: none came

	Queued    time.Duration // waiting for an endpoint
	Connect   time.Duration // making connections, in all attempts together
	Handshake time.Duration // likewise

	FromClient, ToClient uint64 // bytes of bodies

	Upgraded bool
	Ended    string       // how an upgraded connection ended
	Reason   certs.Reason // of the failure upstream
	Status   int          // of gRPC, for a client that takes one

	got time.Duration // from the start until the last connection; 0: not worth measuring
}

// dialled adds the time that it took to make a connection.
func (l *Log) dialled(d *accesslog.Dial) {
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

// connected records the connection of the exchange, which it requested at the
// time asked.
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
		l.dialled(g.Dial)
	}
}

// recordHead records that the response's head has come.
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
