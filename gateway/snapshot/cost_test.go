package snapshot

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A write of one resource looks only at that resource and at the resources that use it,
// no matter how many resources exist. One listener names all certificates and has all
// routes.
func TestAWriteReadsOnlyAffectedResources(t *testing.T) {
	const n = 1000
	w := newTestbed(t)
	issued := w.ca.Server(t, "h.test")
	bundle := func(i int) *adminv1.TrustBundle {
		return &adminv1.TrustBundle{Name: fmt.Sprint("b", i), Source: &adminv1.TrustBundle_Pem{Pem: string(w.ca.TrustPEM())}}
	}
	upstream := func(i int) *adminv1.Upstream {
		return &adminv1.Upstream{
			Name: fmt.Sprint("u", i), Endpoints: []*adminv1.Endpoint{{Address: "up.test:443"}},
			Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{TrustBundles: []string{fmt.Sprint("b", i)}, Certificate: fmt.Sprint("c", i)}},
		}
	}
	route := func(i int) *adminv1.Route {
		return forward(fmt.Sprint("r", i), &adminv1.RouteMatch{Hosts: []string{fmt.Sprintf("h%d.test", i)}}, "web", fmt.Sprint("u", i))
	}
	web := listener("web", "127.0.0.1:1", httpP, "")
	web.Tls = &adminv1.ServerTls{}
	var all []store.Resource
	for i := range n {
		web.Tls.Certificates = append(web.Tls.Certificates, fmt.Sprint("c", i))
		l := listener(fmt.Sprint("l", i), fmt.Sprintf("127.0.0.1:%d", 2+i), httpP, "")
		l.Upstream = fmt.Sprint("u", i)
		all = append(all, bundle(i), pemCertificate(fmt.Sprint("c", i), issued), upstream(i), route(i), l)
	}
	all = append(all, web)
	var bad invalid.List
	e := store.Edit{Puts: puts(all...)}
	snap := compile(testCompiler(), new(Snapshot), e, new(store.State).Edit(e, &bad), &bad)
	if err := bad.Err(); err != nil {
		t.Fatal(err)
	}

	renewed := pemCertificate("c7", w.ca.Server(t, "h.test"))
	labeled := bundle(7)
	labeled.Labels = map[string]string{"l": "1"}
	otherBundle := bundle(7)
	otherBundle.Source = &adminv1.TrustBundle_Pem{Pem: string(newTestbed(t).ca.TrustPEM())}
	heavier := upstream(7)
	heavier.Endpoints[0].Weight = ptr(int32(7))
	other := route(7)
	other.Match.Methods = []string{"GET"}
	patient := proto.Clone(web).(*adminv1.Listener)
	patient.Timeouts = &adminv1.ListenerTimeouts{Idle: durationpb.New(time.Minute)}
	fewer := proto.Clone(web).(*adminv1.Listener)
	fewer.Tls.Certificates = fewer.Tls.Certificates[1:]
	for what, edit := range map[string]store.Edit{
		"renewed certificate":              {Puts: puts(renewed)},
		"trust bundle, another label":      {Puts: puts(labeled)},
		"trust bundle, another CA":         {Puts: puts(otherBundle)},
		"upstream":                         {Puts: puts(heavier)},
		"route":                            {Puts: puts(other)},
		"listener, another timeout":        {Puts: puts(patient)},
		"listener with fewer certificates": {Puts: puts(fewer)},
		"deleted route":                    {Deletes: []store.Delete{{Path: "d", Kind: adminv1.Kind_KIND_ROUTE, Name: "r7"}}},
	} {
		var bad invalid.List
		m, err := testCompiler().Gather(t.Context(), snap, edit, Needs{})
		if err != nil {
			t.Fatal(err)
		}
		j, ok := testCompiler().compileChanged(snap, snap.State().Edit(edit, &bad), m)
		if !ok || bad.Len()+j.bad.Len() > 0 || !j.needs.None() {
			t.Errorf("%s: ok %v, faults %v %v", what, ok, bad.Faults(), j.bad.Faults())
		}
		if j.looked > 12 {
			t.Errorf("%s: %d resources were checked", what, j.looked)
		}
	}
}
