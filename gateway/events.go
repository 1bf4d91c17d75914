package gateway

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// event sends an event to all watchers. It takes ownership of the message and never
// blocks.
func (g *Gateway) event(e *adminv1.Event) {
	e.EventTime = timestamppb.New(time.Now())
	g.events.Append(func(sequence int64) (*adminv1.Event, int) {
		e.Sequence = sequence
		return e, proto.Size(e)
	})
}

// observe publishes what happens at the endpoints of upstreams as events.
func (g *Gateway) observe(e upstream.Event) {
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
	case upstream.EndpointsChanged:
		out.Type, out.Health, out.Message = adminv1.EventType_EVENT_TYPE_ENDPOINTS_CHANGED, adminv1.EndpointHealth_ENDPOINT_HEALTH_UNSPECIFIED, e.Message
	}
	if e.Failure != nil {
		out.Reason, out.Message = failure(e.Failure.Reason), e.Failure.Message
	}
	g.event(out)
}

// fileGateway is the gateway as package files uses it.
type fileGateway struct{ *Gateway }

func (g fileGateway) Live() *snapshot.Snapshot { return g.live.Load() }

func (g fileGateway) Gather(ctx context.Context, e store.Edit) (*snapshot.Material, error) {
	return g.gather(ctx, g.live.Load(), e, snapshot.Needs{})
}

func (g fileGateway) ApplyRead(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error) {
	return g.applyRead(ctx, e, m)
}

func (g fileGateway) FileEvent(ref store.Ref, e *adminv1.Event) {
	if e.Type == adminv1.EventType_EVENT_TYPE_FILE_REFUSED {
		g.log.Warn("files rejected", "resource", ref.String(), "error", e.Message)
	} else {
		g.log.Info("files loaded", "resource", ref.String(), "revision", e.Revision)
	}
	e.Kind, e.Name, e.Count = ref.Kind, ref.Name, 1
	g.event(e)
}

// applied publishes a new revision as an event.
func (g *Gateway) applied(u store.Update) {
	message := fmt.Sprintf("%d resources changed", len(u.Changes))
	if len(u.Changes) == 1 {
		message = "1 resource changed"
	}
	if u.Comment != "" {
		message += ": " + u.Comment
	}
	g.event(&adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_APPLIED, Message: message, Revision: u.Revision, Count: 1})
}
