package view

import (
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// EventLine formats an event for people: time, type, resource and reason.
func EventLine(p terminal.Paint, e *adminv1.Event) string {
	color := p.Caution
	what := format.Lower(e.GetType())
	switch e.GetType() {
	case adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH:
		what = format.Lower(e.GetHealth())
		if e.GetHealth() == adminv1.EndpointHealth_ENDPOINT_HEALTH_UP {
			color = p.Good
		} else {
			color = p.Bad
		}
	case adminv1.EventType_EVENT_TYPE_HANDSHAKE_FAILURE:
		what, color = "failed", p.Bad
	case adminv1.EventType_EVENT_TYPE_ENDPOINT_EJECTED:
		what, color = "ejected", p.Bad
	case adminv1.EventType_EVENT_TYPE_ENDPOINT_RETURNED:
		what, color = "returned", p.Good
	case adminv1.EventType_EVENT_TYPE_ENDPOINTS_CHANGED:
		what = "changed"
	case adminv1.EventType_EVENT_TYPE_FILE_LOADED:
		what, color = "loaded", p.Good
	case adminv1.EventType_EVENT_TYPE_CONNECTIONS_UNVERIFIED:
		what, color = "invalid", p.Bad
	case adminv1.EventType_EVENT_TYPE_MISSED:
		what = "missed"
	case adminv1.EventType_EVENT_TYPE_FLEET_CONNECTED:
		what, color = "etcd up", p.Good
	case adminv1.EventType_EVENT_TYPE_FLEET_DISCONNECTED:
		what, color = "no etcd", p.Bad
	case adminv1.EventType_EVENT_TYPE_FLEET_DIVERGED:
		what, color = "diverged", p.Bad
	case adminv1.EventType_EVENT_TYPE_FLEET_DUPLICATE_ID:
		what, color = "same ID", p.Bad
	case adminv1.EventType_EVENT_TYPE_FILE_REFUSED:
		what, color = "refused", p.Bad
	}
	line := e.GetEventTime().AsTime().Local().Format("01-02 15:04:05") + "  " + color(terminal.Pad(what, 8))
	if e.GetName() != "" {
		line += " " + manifest.KindName(e.GetKind()) + " " + terminal.Printable(e.GetName())
	}
	if e.GetEndpoint() != "" {
		line += " " + terminal.Printable(e.GetEndpoint())
	}
	if e.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
		line += " " + color(format.Word(e.GetReason()))
	}
	if e.GetMessage() != "" {
		line += ": " + terminal.Printable(e.GetMessage())
	}
	if e.GetCount() > 1 {
		line += p.Faint(fmt.Sprintf(" (%d times)", e.GetCount()))
	}
	return line
}
