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
		store.Wrap(listener("web", "payments")), // refers to the upstream listed after it
		store.Wrap(upstream("payments")),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if c := res.GetChange(); c.GetRevision() != 1 || len(c.GetChanges()) != 2 {
		t.Errorf("change = %v", c)
	}
	// One Apply also deletes both, although the listener uses the upstream and is
	// listed after it.
	res, err = r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Deletes: []*adminv1.ResourceDelete{
		{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "payments"}, {Kind: adminv1.Kind_KIND_LISTENER, Name: "web"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if c := res.GetChange(); c.GetRevision() != 2 || len(c.GetChanges()) != 2 {
		t.Errorf("change = %v", c)
	}
}

func TestAllFaultsOfAnApplyAreReportedAtOnce(t *testing.T) {
	r := start(t)
	_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{
		Resources: []*adminv1.Resource{
			store.Wrap(upstream("good")),
			{}, // an empty resource
			store.Wrap(listener("web", "missing")),
			store.Wrap(upstream("Bad Name")),
			{Kind: &adminv1.Resource_Route{}}, // names a route that does not exist
		},
		Deletes: []*adminv1.ResourceDelete{{Name: "x"}, {Kind: adminv1.Kind_KIND_ROUTE, Name: "gone"}, {Kind: 99, Name: "y"}},
		Options: &adminv1.WriteOptions{Comment: strings.Repeat("x", 1025)},
	})
	wantCode(t, err, codes.InvalidArgument)
	var fields []string
	for _, v := range detail[*errdetails.BadRequest](t, err).GetFieldViolations() {
		fields = append(fields, v.GetField())
		if !strings.Contains(status.Convert(err).Message(), v.GetField()+": "+v.GetDescription()) {
			t.Errorf("the message does not mention %v", v)
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

func TestApplyWithAnEmptyResourceChangesNothing(t *testing.T) {
	r := start(t)
	_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{
		Resources: []*adminv1.Resource{store.Wrap(upstream("good")), {}}, Prune: &adminv1.Prune{Kinds: store.Kinds()},
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

func TestPruneDeletesUnnamedResources(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 3)
	res, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: []*adminv1.Resource{store.Wrap(upstream("u-0001"))}, Prune: &adminv1.Prune{Kinds: store.Kinds()}})
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

func TestGetStatusReturnsTheGatewaysStatus(t *testing.T) {
	r := start(t)
	st, err := r.status.GetStatus(t.Context(), &adminv1.GetStatusRequest{})
	if err != nil || st.GetVersion() != "test" {
		t.Errorf("GetStatus = %v, %v", st, err)
	}
	putUpstreams(t, r, 1)
	ups, err := r.status.ListUpstreams(t.Context(), &adminv1.ListUpstreamStatusesRequest{})
	if err != nil || len(ups.GetUpstreams()) != 1 || ups.GetUpstreams()[0].GetName() != "u-0000" {
		t.Errorf("ListUpstreams = %v, %v", ups, err)
	}
}

func TestPruneDeletesOnlyTheKindsAndLabelsItNames(t *testing.T) {
	r := start(t)
	labeled := func(name, team string) *adminv1.Resource {
		u := upstream(name)
		u.Labels = map[string]string{"team": team}
		return store.Wrap(u)
	}
	_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: []*adminv1.Resource{
		labeled("pay", "a"), labeled("other", "b"), store.Wrap(&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_System{System: &adminv1.SystemRoots{}}}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	apply := func(p *adminv1.Prune) error {
		_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Prune: p})
		return err
	}
	for want, p := range map[string]*adminv1.Prune{
		"prune.kinds":          {LabelSelector: "team=a"},
		"prune.kinds[0]":       {Kinds: []adminv1.Kind{0}},
		"prune.label_selector": {Kinds: store.Kinds(), LabelSelector: "team"},
	} {
		err := apply(p)
		wantCode(t, err, codes.InvalidArgument)
		if v := detail[*errdetails.BadRequest](t, err).GetFieldViolations(); len(v) != 1 || v[0].GetField() != want {
			t.Errorf("%v, want a fault at %s", v, want)
		}
	}
	if err := apply(nil); err != nil || r.gateway.State().Revision() != 1 {
		t.Errorf("without prune: %v, revision %d", err, r.gateway.State().Revision())
	}
	if err := apply(&adminv1.Prune{Kinds: []adminv1.Kind{adminv1.Kind_KIND_UPSTREAM}, LabelSelector: "team in (a, c)"}); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, res := range r.gateway.State().All() {
		left = append(left, res.GetName())
	}
	if !slices.Equal(left, []string{"corp", "other"}) {
		t.Errorf("left: %v", left)
	}
}

func TestCreateOnlyAndRetriesAfterALostAnswer(t *testing.T) {
	r := start(t)
	ctx := t.Context()
	create := &adminv1.WriteOptions{CreateOnly: true}
	put := func(u *adminv1.Upstream, o *adminv1.WriteOptions) (*adminv1.Upstream, error) {
		a, err := r.admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: u, Options: o})
		return a.GetUpstream(), err
	}
	first, err := put(upstream("pay"), create)
	if err != nil {
		t.Fatal(err)
	}
	// A client that lost the answer sends the same request again.
	if again, err := put(upstream("pay"), create); err != nil || again.GetEtag() != first.GetEtag() {
		t.Errorf("created again: %v, %v", again, err)
	}
	other := upstream("pay")
	other.Labels = map[string]string{"a": "b"}
	_, err = put(other, create)
	wantCode(t, err, codes.AlreadyExists)
	if info := detail[*errdetails.ErrorInfo](t, err); info.GetReason() != "ALREADY_EXISTS" {
		t.Errorf("%v", info)
	}

	other.Etag = first.GetEtag()
	second, err := put(other, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := put(other, nil); err != nil || again.GetEtag() != second.GetEtag() || r.gateway.State().Revision() != 2 {
		t.Errorf("put again with a stale etag: %v, %v", again, err)
	}
	stale := upstream("pay")
	stale.Etag = first.GetEtag()
	_, err = put(stale, nil)
	wantCode(t, err, codes.Aborted)

	remove := func(etag string, revision int64) error {
		_, err := r.admin.Apply(ctx, &adminv1.ApplyRequest{ExpectedRevision: &revision,
			Deletes: []*adminv1.ResourceDelete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "pay", Etag: etag}}})
		return err
	}
	wantCode(t, remove(first.GetEtag(), 2), codes.Aborted)
	wantCode(t, remove(second.GetEtag(), 1), codes.Aborted)
	for range 2 { // in the second round, the upstream is already deleted and the revision has changed
		if err := remove(second.GetEtag(), 2); err != nil {
			t.Error(err)
		}
	}
	wantCode(t, remove("", 3), codes.NotFound)
}
