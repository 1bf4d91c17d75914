package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestApplyMakesOneRevisionInAnyOrder(t *testing.T) {
	r := start(t)
	res, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: []*adminv1.Resource{
		store.Wrap(listener("web", "payments")), // refers to what comes after it
		store.Wrap(upstream("payments")),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if c := res.GetChange(); c.GetRevision() != 1 || len(c.GetChanges()) != 2 {
		t.Errorf("change = %v", c)
	}
	// The other way round: both go at once although one uses the other.
	res, err = r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Deletes: []*adminv1.ResourceRef{
		{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "payments"}, {Kind: adminv1.Kind_KIND_LISTENER, Name: "web"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if c := res.GetChange(); c.GetRevision() != 2 || len(c.GetChanges()) != 2 {
		t.Errorf("change = %v", c)
	}
}

func TestAllFaultsOfAnApplyComeInOneAnswer(t *testing.T) {
	r := start(t)
	_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{
		Resources: []*adminv1.Resource{
			store.Wrap(upstream("good")),
			{}, // holds nothing
			store.Wrap(listener("web", "missing")),
			store.Wrap(upstream("Bad Name")),
			{Kind: &adminv1.Resource_Route{}}, // holds a route that is not there
		},
		Deletes: []*adminv1.ResourceRef{{Name: "x"}, {Kind: adminv1.Kind_KIND_ROUTE, Name: "gone"}, {Kind: 99, Name: "y"}},
		Options: &adminv1.WriteOptions{Comment: strings.Repeat("x", 1025)},
	})
	wantCode(t, err, codes.InvalidArgument)
	var fields []string
	for _, v := range detail[*errdetails.BadRequest](t, err).GetFieldViolations() {
		fields = append(fields, v.GetField())
		if !strings.Contains(status.Convert(err).Message(), v.GetField()+": "+v.GetDescription()) {
			t.Errorf("the message does not tell of %v", v)
		}
	}
	want := []string{
		"resources[1]", "options.comment", "resources[2].listener.upstream", "resources[3].upstream.name", "resources[4].route.name",
		"deletes[0].kind", "deletes[1].name", "deletes[2].kind",
	}
	slices.Sort(fields)
	slices.Sort(want)
	if !slices.Equal(fields, want) {
		t.Errorf("faults at\n%q, want\n%q", fields, want)
	}
	if rev := r.gateway.State().Revision(); rev != 0 {
		t.Errorf("a refused apply made revision %d", rev)
	}
}

func TestAnApplyWithAnEmptyResourceChangesNothingEvenIfTheRestIsGood(t *testing.T) {
	r := start(t)
	_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{
		Resources: []*adminv1.Resource{store.Wrap(upstream("good")), {}}, Prune: true,
	})
	wantCode(t, err, codes.InvalidArgument)
	v := detail[*errdetails.BadRequest](t, err).GetFieldViolations()
	if len(v) != 1 || v[0].GetField() != "resources[1]" || !strings.HasPrefix(v[0].GetDescription(), "must hold one of") {
		t.Errorf("violations = %v", v)
	}
	if rev := r.gateway.State().Revision(); rev != 0 {
		t.Errorf("it made revision %d", rev)
	}
}

func TestPruneDeletesWhatIsNotNamed(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 3)
	res, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: []*adminv1.Resource{store.Wrap(upstream("u-0001"))}, Prune: true})
	if err != nil {
		t.Fatal(err)
	}
	actions := map[string]adminv1.ChangeAction{}
	for _, c := range res.GetChange().GetChanges() {
		actions[c.GetName()] = c.GetAction()
	}
	if actions["u-0000"] != adminv1.ChangeAction_CHANGE_ACTION_DELETED || actions["u-0001"] != adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED ||
		actions["u-0002"] != adminv1.ChangeAction_CHANGE_ACTION_DELETED {
		t.Errorf("actions = %v", actions)
	}
}

func TestAStaleExpectedRevisionAborts(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 1)
	_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{
		Resources: []*adminv1.Resource{store.Wrap(upstream("late"))}, ExpectedRevision: proto.Int64(0),
	})
	wantCode(t, err, codes.Aborted)
	if v := detail[*errdetails.BadRequest](t, err).GetFieldViolations(); v[0].GetField() != "expected_revision" {
		t.Errorf("violations = %v", v)
	}
}

func TestGetConfigHoldsEverythingInOrder(t *testing.T) {
	r := start(t)
	_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: []*adminv1.Resource{
		store.Wrap(listener("web", "b")), store.Wrap(upstream("b")), store.Wrap(upstream("a")),
		store.Wrap(&adminv1.Route{Name: "r", Listeners: []string{"web"}}), store.Wrap(&adminv1.TrustBundle{Name: "corp"}),
		store.Wrap(&adminv1.Certificate{Name: "client"}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	config, err := r.admin.GetConfig(t.Context(), &adminv1.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, res := range config.GetResources() {
		field, in := resourceIn(res)
		got = append(got, fmt.Sprintf("%s/%s", field, in.GetName()))
	}
	want := []string{"trust_bundle/corp", "certificate/client", "upstream/a", "upstream/b", "listener/web", "route/r"}
	if !slices.Equal(got, want) || config.GetRevision() != 1 {
		t.Errorf("revision %d of %v, want 1 of %v", config.GetRevision(), got, want)
	}
}

func TestStatusIsTheGateways(t *testing.T) {
	r := start(t)
	st, err := r.status.GetStatus(t.Context(), &adminv1.GetStatusRequest{})
	if err != nil || st.GetVersion() != "test" {
		t.Errorf("GetStatus = %v, %v", st, err)
	}
	ups, err := r.status.ListUpstreams(t.Context(), &adminv1.StatusServiceListUpstreamsRequest{})
	if err != nil || len(ups.GetUpstreams()) != 1 || ups.GetUpstreams()[0].GetName() != "payments" {
		t.Errorf("ListUpstreams = %v, %v", ups, err)
	}
}
