package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// nextEvent returns the next event of the type.
func nextEvent(t *testing.T, events <-chan *adminv1.Event, want adminv1.EventType) *adminv1.Event {
	t.Helper()
	for end := time.After(deadline); ; {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the channel was closed")
			}
			if e.GetType() == want {
				return e
			}
		case <-end:
			t.Fatalf("no event of type %v", want)
		}
	}
}

func TestEachRevisionIsAnEvent(t *testing.T) {
	g := start(t, "")
	events, stop := g.WatchEvents()
	defer stop()
	e := store.Edit{Comment: "a new upstream", Puts: puts(&adminv1.Upstream{Name: "u", Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}})}
	g.apply(e)
	g.apply(e) // changes nothing, and causes no event
	e.Puts[0].Resource.(*adminv1.Upstream).Endpoints[0].Address = "127.0.0.1:2"
	g.apply(e)
	for revision := range int64(2) {
		got := nextEvent(t, events, adminv1.EventType_EVENT_TYPE_APPLIED)
		if got.GetRevision() != revision+1 || got.GetMessage() != "1 resource changed: a new upstream" || got.GetEventTime().AsTime().IsZero() {
			t.Errorf("%v", got)
		}
	}
}

func TestPuttingACertificateNearExpirySendsAnEvent(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	events, stop := g.WatchEvents()
	defer stop()
	soon := ca.Leaf(t, pki.LeafOptions{CommonName: "soon", Usage: pki.Client, NotAfter: time.Now().Add(10 * 24 * time.Hour)})
	g.put(inlineCertificate("soon", soon))
	e := nextEvent(t, events, adminv1.EventType_EVENT_TYPE_EXPIRY)
	if e.GetKind() != adminv1.Kind_KIND_CERTIFICATE || e.GetName() != "soon" || !strings.Contains(e.GetMessage(), "CN=soon expires on") {
		t.Errorf("%v", e)
	}
	if c := g.Certificates(); len(c) != 1 || c[0].GetUse() != adminv1.CertificateUse_CERTIFICATE_USE_OWN || c[0].GetDaysLeft() != 9 {
		t.Errorf("%v", c)
	}
}

func TestCertificatesInUseAreSortedByExpiry(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("l", "127.0.0.1:0"))...)
	c := dial(t, g.address("l"))
	c.echo(t, "hello")
	c.Close()
	var got []string
	for _, c := range g.Certificates() {
		for _, by := range c.GetUsedBy() {
			got = append(got, strings.ToLower(strings.TrimPrefix(c.GetUse().String(), "CERTIFICATE_USE_"))+" "+c.GetName()+" used by "+store.KindName(by.GetKind())+" "+by.GetName())
		}
	}
	for _, want := range []string{"own client used by upstream up", "trust corp used by upstream up", "upstream up used by upstream up"} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}
