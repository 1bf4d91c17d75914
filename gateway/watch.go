package gateway

import (
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// How much history is kept for watchers, and for clients that resume a watch.
const (
	keptUpdates     = 1024
	keptUpdateBytes = 16 << 20
	keptEvents      = 1024
	keptEventBytes  = 4 << 20
)

// InstanceID identifies the store that revisions belong to.
func (g *Gateway) InstanceID() string { return g.instance }

// Updates returns updates that follow a revision, like history.Log.After. They are
// shared and must not be modified.
func (g *Gateway) Updates(after int64) ([]store.Update, <-chan struct{}, error) {
	return g.updates.After(after)
}

// Events returns events that follow a sequence number, like history.Log.After.
// They are shared and must not be modified.
func (g *Gateway) Events(after int64) ([]*adminv1.Event, <-chan struct{}, error) {
	return g.events.After(after)
}

// EventBounds returns the sequence number before the oldest stored event, and the
// sequence number of the last event.
func (g *Gateway) EventBounds() (before, last int64) { return g.events.Bounds() }
