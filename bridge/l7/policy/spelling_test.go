package policy

import (
	"slices"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestRespelledFieldsAreDropped(t *testing.T) {
	routing := []string{"X-Tenant", "X_Zone"}
	for name, c := range map[string]struct{ repeated, keep, all bool }{
		// Plain names and other fields.
		"Content-Length": {true, true, true}, // CleanRequest removes it because it frames the body, not because of its spelling
		"Content-Type":   {true, true, true}, "X-Tenant": {true, true, true}, "x-tenant": {true, true, true}, "X_Zone": {true, true, false}, "X-Other": {true, true, true}, "X_Other": {true, true, false},
		"Content-_Length": {true, true, false}, "Content__Length": {true, true, false}, "ContentLength": {true, true, true}, "_Content_Length": {true, true, false},
		"X.Other": {true, true, true}, "my_content_length": {true, true, false}, "_": {true, true, false},
		// Framing and the connection.
		"Content_Length": {false, true, false}, "CONTENT_LENGTH": {false, true, false}, "content_length": {false, true, false}, "Content.Length": {false, true, false}, "Content~Length": {false, true, false},
		"Transfer_Encoding": {false, true, false}, "transfer_ENCODING": {false, true, false}, "Transfer|Encoding": {false, true, false}, "Keep_Alive": {false, true, false},
		"Proxy_Connection": {false, true, false}, "Proxy_Authorization": {false, true, false}, "Proxy_Authenticate": {false, true, false}, "HTTP2_Settings": {false, true, false},
		"Content_Type": {false, true, false}, "Grpc_Timeout": {false, true, false},
		// Routing.
		"X_Tenant": {false, true, false}, "x.tenant": {false, true, false}, "X-Zone": {false, true, true},
	} {
		for u, keeps := range map[UnderscoreFields]bool{DropRepeatedMeaning: c.repeated, KeepUnderscores: c.keep, DropAllUnderscores: c.all && c.repeated} {
			s := Spelling{Underscores: u, Routing: routing}
			if s.drops(name) == keeps {
				t.Errorf("%s with %d: dropped %v", name, u, keeps)
			}
		}
	}
}

// With every UnderscoreFields, no client sets a field that the gateway sets.
func TestFieldsOfTheGatewayInEverySpelling(t *testing.T) {
	for _, u := range []UnderscoreFields{DropRepeatedMeaning, KeepUnderscores, DropAllUnderscores} {
		for _, name := range []string{
			"X_Forwarded_For", "X.Forwarded.For", "X-Forwarded_For", "X_Forwarded_Anything", "X_Real_IP", "X_Client_Cert_Subject", "X.Client.Cert.San", "Client_Cert", "Client.Cert", "Client_Cert_Chain",
			"X_Id", "X.Id", "x-ID", "X_Set", "X.Set", "X_Removed", "X!Removed",
		} {
			rules := HeaderRules{Remove: []string{"X-Removed"}, Set: values("X-Set: ours")}
			spelling := Spelling{Underscores: u}
			x := factsOf("192.0.2.1:1", fields(name+": forged", "Other: 1"))
			x.Identify(nil)
			x.RequestID = "7"
			CleanRequest(x.Request, &spelling)
			x.SetForwarding(SendNoForwarding)
			x.SetRequestID("X-Id")
			rules.ApplyRequest(x)
			for _, f := range x.Request.Fields {
				if f.Value == "forged" {
					t.Errorf("%s with %d: %v", name, u, x.Request.Fields)
				}
			}
			protected := Protected{Rules: &rules, RequestIDField: "X-Id", Spelling: &spelling}
			if left := protected.CleanTrailer(fields(name+": forged", "Other: 1")); !slices.Equal(left, fields("Other: 1")) {
				t.Errorf("%s with %d in the trailer: %v", name, u, left)
			}
		}
	}
}

func TestTrailersCannotRouteOrFrame(t *testing.T) {
	spelling := Spelling{Routing: []string{"X-Tenant"}}
	p := Protected{Rules: &HeaderRules{}, HashField: "X-Session", Spelling: &spelling}
	for _, name := range []string{"X-Tenant", "x_tenant", "X-Session", "X_SESSION", "Content_Length", "Transfer_Encoding", "Keep_Alive"} {
		r := message.Request{Length: -1, Fields: fields("Trailer: X-Sum, " + name)}
		p.CleanAnnouncement(&r)
		if got := p.CleanTrailer(fields(name+": 1", "X-Sum: 2")); !slices.Equal(got, fields("X-Sum: 2")) || !slices.Equal(r.Fields, fields("Trailer: X-Sum")) {
			t.Errorf("%s: %v, announced %v", name, got, r.Fields)
		}
	}
}

func TestRemoveRespelled(t *testing.T) {
	given := fields("X-Session: 1", "X_Session: 2", "x-session: 3", "X.SESSION: 4", "Y: 5")
	for u, want := range map[UnderscoreFields]message.Fields{
		DropRepeatedMeaning: fields("X-Session: 1", "x-session: 3", "Y: 5"), KeepUnderscores: given,
	} {
		f := slices.Clone(given)
		if (&Spelling{Underscores: u}).RemoveRespelled(&f, "X-Session"); !slices.Equal(f, want) {
			t.Errorf("%d: %v", u, f)
		}
	}
}
