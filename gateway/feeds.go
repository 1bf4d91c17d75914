package gateway

import (
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/gateway/history"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The size of the history for watchers, and for clients that resume a watch.
const (
	keptUpdates     = 1024
	keptUpdateBytes = 16 << 20
	keptEvents      = 1024
	keptEventBytes  = 4 << 20
)

// feeds holds the recent events and revisions that clients of the admin API watch.
// Its methods may be called concurrently.
type feeds struct {
	instance atomic.Pointer[string] // identifies the store
	updates  *history.Log[store.Update]
	events   *history.Log[*adminv1.Event]
}

// newFeeds returns feeds of events. openUpdates adds the updates once the store is open.
func newFeeds(started time.Time) *feeds {
	return &feeds{events: history.New[*adminv1.Event](keptEvents, keptEventBytes, started.UnixMicro())}
}

// openUpdates starts the updates after the store's revision.
func (f *feeds) openUpdates(instance string, revision int64) {
	f.instance.Store(&instance)
	f.updates = history.New[store.Update](keptUpdates, keptUpdateBytes, revision)
}

// startOver makes watchers read the state again, because the steps to a revision are
// unknown.
func (f *feeds) startOver(revision int64) { f.updates.Restart(revision) }

// close ends every watch.
func (f *feeds) close() {
	f.updates.Close()
	f.events.Close()
}

// InstanceID identifies the store that revisions belong to.
func (f *feeds) InstanceID() string { return *f.instance.Load() }

// Updates returns updates that follow a revision, like history.Log.After. They are
// shared and must not be modified.
func (f *feeds) Updates(after int64) ([]store.Update, <-chan struct{}, error) {
	return f.updates.After(after)
}

// Events returns events that follow a sequence number, like history.Log.After.
// They are shared and must not be modified.
func (f *feeds) Events(after int64) ([]*adminv1.Event, <-chan struct{}, error) {
	return f.events.After(after)
}

// EventBounds returns the sequence number before the oldest stored event, and the
// sequence number of the last event.
func (f *feeds) EventBounds() (before, last int64) { return f.events.Bounds() }

// event sends an event to all watchers. It takes ownership of the message and never
// blocks.
func (f *feeds) event(e *adminv1.Event) {
	e.EventTime = timestamppb.New(time.Now())
	f.events.Append(func(sequence int64) (*adminv1.Event, int) {
		e.Sequence = sequence
		return e, proto.Size(e)
	})
}

// observe publishes the events of the upstreams' endpoints.
func (f *feeds) observe(e upstream.Event) {
	out := &adminv1.Event{
		Type: adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH, Kind: adminv1.Kind_KIND_UPSTREAM, Name: e.Upstream, Endpoint: e.Endpoint,
		Health: healths[e.Health], Count: 1,
	}
	switch e.Kind {
	case upstream.Failed:
		out.Type, out.Count = adminv1.EventType_EVENT_TYPE_HANDSHAKE_FAILURE, int64(e.Count)
	case upstream.Ejected:
		out.Type = adminv1.EventType_EVENT_TYPE_ENDPOINT_EJECTED
	case upstream.Returned:
		out.Type = adminv1.EventType_EVENT_TYPE_ENDPOINT_RETURNED
	case upstream.Unverified:
		out.Type, out.Count = adminv1.EventType_EVENT_TYPE_CONNECTIONS_UNVERIFIED, int64(e.Count)
		out.Health = adminv1.EndpointHealth_ENDPOINT_HEALTH_UNSPECIFIED
	case upstream.EndpointsChanged:
		out.Type, out.Health, out.Message = adminv1.EventType_EVENT_TYPE_ENDPOINTS_CHANGED, adminv1.EndpointHealth_ENDPOINT_HEALTH_UNSPECIFIED, e.Message
	}
	if e.Failure != nil {
		out.Reason, out.Message = snapshot.Reason(e.Failure.Reason), e.Failure.Message
	}
	f.event(out)
}

// unverified publishes that clients of a listener no longer verify.
func (f *feeds) unverified(listener string, found validity.Finding) {
	f.event(&adminv1.Event{
		Type: adminv1.EventType_EVENT_TYPE_CONNECTIONS_UNVERIFIED, Kind: adminv1.Kind_KIND_LISTENER, Name: listener,
		Reason: snapshot.Reason(found.Reason), Message: found.Message(), Count: int64(found.Count),
	})
}

// announce publishes a new revision, as an update and as an event.
func (f *feeds) announce(u store.Update) {
	f.updates.Append(func(int64) (store.Update, int) { return u, u.Size() })
	f.event(appliedEvent(u))
}

// appliedEvent returns the event of a new revision.
func appliedEvent(u store.Update) *adminv1.Event {
	message := fmt.Sprintf("%d resources changed", len(u.Changes))
	if len(u.Changes) == 1 {
		message = "1 resource changed"
	}
	if u.Comment != "" {
		message += ": " + u.Comment
	}
	return &adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_APPLIED, Message: message, Revision: u.Revision, Count: 1}
}
