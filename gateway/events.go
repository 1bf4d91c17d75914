package gateway

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// event tells everyone who watches events. It takes the message over, and never
// blocks.
func (g *Gateway) event(e *adminv1.WatchEventsResponse) {
	e.Time = timestamppb.New(time.Now())
	g.events.announce(e)
}

// WatchEvents returns a channel of what happens from now on. It is closed when
// its reader is too slow and when the gateway stops. The messages are shared and
// must not be modified. The caller must call stop when it is done.
func (g *Gateway) WatchEvents() (events <-chan *adminv1.WatchEventsResponse, stop func()) {
	c := g.events.add()
	return c, func() { g.events.remove(c) }
}

// observe tells of what happens at the endpoints of upstreams.
func (g *Gateway) observe(e upstream.Event) {
	out := &adminv1.WatchEventsResponse{
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

// applied tells of a revision.
func (g *Gateway) applied(revision int64, changes int, comment string) {
	message := fmt.Sprintf("%d resources changed", changes)
	if changes == 1 {
		message = "1 resource changed"
	}
	if comment != "" {
		message += ": " + comment
	}
	g.event(&adminv1.WatchEventsResponse{Type: adminv1.EventType_EVENT_TYPE_APPLIED, Message: message, Revision: revision, Count: 1})
}
