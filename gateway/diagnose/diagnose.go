package diagnose

import (
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Options hold the sources of a Diagnostics. All fields are required.
type Options struct {
	Live func() *snapshot.Snapshot

	// Compiler builds upstreams that a probe request holds in full.
	Compiler *snapshot.Compiler

	// Down returns why a listener of the live snapshot could not be bound, or "".
	Down func(listener string) string

	Logger hclog.Logger
}

// A Diagnostics answers the requests of DiagnosticsService. Its methods may be
// called concurrently.
type Diagnostics struct{ o Options }

// New returns a Diagnostics.
func New(o Options) *Diagnostics { return &Diagnostics{o} }

// Explain returns where a request would go, without sending one. The error is an
// *invalid.Error.
func (d *Diagnostics) Explain(req *adminv1.ExplainRouteRequest) (*adminv1.ExplainRouteResponse, error) {
	var bad invalid.List
	out := d.o.Live().Explain(req, &bad)
	if err := bad.Err(); err != nil {
		return nil, err
	}
	if reason := d.o.Down(req.GetListener()); reason != "" {
		return &adminv1.ExplainRouteResponse{Action: adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE, Why: "the listener is down: " + reason}, nil
	}
	return out, nil
}

// FlushSessions discards the cached TLS sessions with an upstream's endpoints and
// returns how many it discarded. The error is an *invalid.Error.
func (d *Diagnostics) FlushSessions(name string) (int, error) {
	u, ok := d.o.Live().Upstream(name)
	if !ok {
		return 0, invalid.Errorf(invalid.NotFound, "upstream", "%s", d.o.Live().State().Absent(store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: name}))
	}
	n := u.Live.Flush()
	d.o.Logger.Info("sessions flushed", "upstream", name, "sessions", n)
	return n, nil
}

// DrainConnections drains the connections to an upstream that use the client
// certificate with the fingerprint, or all connections if the fingerprint is
// empty. It returns their number and does not wait for them. The error is an
// *invalid.Error.
func (d *Diagnostics) DrainConnections(name, fingerprint string, period time.Duration) (int, error) {
	u, ok := d.o.Live().Upstream(name)
	if !ok {
		return 0, invalid.Errorf(invalid.NotFound, "upstream", "%s", d.o.Live().State().Absent(store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: name}))
	}
	n := u.Tracker.Drain(fingerprint, fingerprint == "", period)
	d.o.Logger.Info("connections draining", "upstream", name, "certificate", fingerprint, "connections", n, "period", period)
	return n, nil
}
