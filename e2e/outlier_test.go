// An nginx of a group that fails requests is ejected for a while. Most clients
// never see the failure, and the server returns when its time is over.

package e2e

import (
	"strings"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestFailingNginxIsEjected(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	one, two := startMarkedNginx(t, a, "one"), startMarkedNginx(t, a, "two")
	g := startGateway(t)
	events := g.watchEvents()
	web := upstream("web", a.settings(), one.address(0), two.address(0))
	web.OutlierDetection = &adminv1.OutlierDetection{ConsecutiveFailures: proto.Int32(3), BaseEjection: durationpb.New(15 * time.Second)}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), web, listener("web", protocolHTTP, "web"))
	one.mark("broken", true)
	clients := newPoller(t, "http://"+g.address("web")+"/")
	ejected := events.await(adminv1.EventType_EVENT_TYPE_ENDPOINT_EJECTED)
	if ejected.GetEndpoint() != one.address(0) || ejected.GetName() != "web" || !strings.HasPrefix(ejected.GetMessage(), "3 failures in a row") {
		t.Errorf("reported as %v", ejected)
	}
	e := g.endpoint("web", one.address(0))
	if e.GetAvailable() || e.GetEjections() != 1 || e.GetEjectionEndTime() == nil || !strings.Contains(e.GetUnavailableReason(), "3 failures in a row") {
		t.Errorf("%v", e)
	}
	if out := g.cli("status").String(); !strings.Contains(out, "ejected") {
		t.Errorf("status shows\n%s", out)
	}
	one.mark("broken", false)
	clients.leave()
	// Only one client at a time uses the server, so exactly three saw a failure.
	if answers := clients.take(); answers["500"] != 3 || answers["two"]+answers["one"]+3 != sum(answers) {
		t.Errorf("while it was ejected: %v", answers)
	}
	events.await(adminv1.EventType_EVENT_TYPE_ENDPOINT_RETURNED)
	if e := g.endpoint("web", one.address(0)); !e.GetAvailable() || e.GetEjections() != 1 || e.GetEjectionEndTime() != nil {
		t.Errorf("%v", e)
	}
	eventually(t, "the endpoint answers again", func() bool {
		_, body := get(t, "http://"+g.address("web")+"/")
		return body == "one"
	})
}
