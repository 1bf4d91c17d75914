package admin

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAPutCreatesThenReplacesThenChangesNothing(t *testing.T) {
	r := start(t)
	ctx := t.Context()
	put := func(u *adminv1.Upstream) *adminv1.PutUpstreamResponse {
		t.Helper()
		res, err := r.admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: u})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	check := func(res *adminv1.PutUpstreamResponse, revision int64, action adminv1.ChangeAction) {
		t.Helper()
		c := res.GetChange()
		if c.GetRevision() != revision || len(c.GetChanges()) != 1 || c.GetChanges()[0].GetAction() != action ||
			c.GetChanges()[0].GetName() != "payments" || c.GetChanges()[0].GetKind() != adminv1.Kind_KIND_UPSTREAM {
			t.Errorf("change = %v, want revision %d, %v", c, revision, action)
		}
	}
	created := put(upstream("payments"))
	check(created, 1, adminv1.ChangeAction_CHANGE_ACTION_CREATED)
	if created.GetUpstream().GetEtag() == "" || created.GetUpstream().GetRevision() != 1 {
		t.Errorf("the answer lacks etag or revision: %v", created.GetUpstream())
	}
	check(put(upstream("payments")), 1, adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED)
	changed := upstream("payments")
	changed.Labels = map[string]string{"team": "a"}
	check(put(changed), 2, adminv1.ChangeAction_CHANGE_ACTION_UPDATED)

	_, err := r.admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: created.GetUpstream()})
	wantCode(t, err, codes.Aborted)
	if v := detail[*errdetails.BadRequest](t, err).GetFieldViolations(); len(v) != 1 || v[0].GetField() != "upstream.etag" {
		t.Errorf("violations of a stale etag: %v", v)
	}
	if info := detail[*errdetails.ErrorInfo](t, err); info.GetDomain() != "drawbridge" || info.GetReason() != "STALE" {
		t.Errorf("ErrorInfo = %v", info)
	}
}

func TestEveryKindIsPutReadListedAndDeleted(t *testing.T) {
	r := start(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	bundle := &adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_System{System: &adminv1.SystemRoots{}}}
	pb, err := r.admin.PutTrustBundle(ctx, &adminv1.PutTrustBundleRequest{TrustBundle: bundle})
	must(err)
	pc, err := r.admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: &adminv1.Certificate{Name: "client"}})
	must(err)
	pu, err := r.admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: upstream("payments")})
	must(err)
	pl, err := r.admin.PutListener(ctx, &adminv1.PutListenerRequest{Listener: listener("web", "payments")})
	must(err)
	pr, err := r.admin.PutRoute(ctx, &adminv1.PutRouteRequest{Route: &adminv1.Route{Name: "v2", Listeners: []string{"web"}}})
	must(err)
	if pb.GetTrustBundle().GetName() != "corp" || pc.GetCertificate().GetName() != "client" || pu.GetUpstream().GetName() != "payments" ||
		pl.GetListener().GetName() != "web" || pr.GetRoute().GetName() != "v2" {
		t.Errorf("puts answered with %v, %v, %v, %v, %v", pb, pc, pu, pl, pr)
	}

	gb, err := r.admin.GetTrustBundle(ctx, &adminv1.GetTrustBundleRequest{Name: "corp"})
	must(err)
	gc, err := r.admin.GetCertificate(ctx, &adminv1.GetCertificateRequest{Name: "client"})
	must(err)
	gu, err := r.admin.GetUpstream(ctx, &adminv1.GetUpstreamRequest{Name: "payments"})
	must(err)
	gl, err := r.admin.GetListener(ctx, &adminv1.GetListenerRequest{Name: "web"})
	must(err)
	gr, err := r.admin.GetRoute(ctx, &adminv1.GetRouteRequest{Name: "v2"})
	must(err)
	if gb.GetSystem() == nil || gc.GetRevision() != 2 || len(gu.GetEndpoints()) != 1 ||
		gl.GetUpstream() != "payments" || gr.GetListeners()[0] != "web" {
		t.Errorf("gets answered with %v, %v, %v, %v, %v", gb, gc, gu, gl, gr)
	}

	lb, err := r.admin.ListTrustBundles(ctx, &adminv1.ListTrustBundlesRequest{})
	must(err)
	lc, err := r.admin.ListCertificates(ctx, &adminv1.ListCertificatesRequest{})
	must(err)
	lu, err := r.admin.ListUpstreams(ctx, &adminv1.ListUpstreamsRequest{})
	must(err)
	ll, err := r.admin.ListListeners(ctx, &adminv1.ListListenersRequest{})
	must(err)
	lr, err := r.admin.ListRoutes(ctx, &adminv1.ListRoutesRequest{})
	must(err)
	if len(lb.GetTrustBundles()) != 1 || len(lc.GetCertificates()) != 1 || len(lu.GetUpstreams()) != 1 || len(ll.GetListeners()) != 1 || len(lr.GetRoutes()) != 1 {
		t.Errorf("lists answered with %v, %v, %v, %v, %v", lb, lc, lu, ll, lr)
	}

	_, err = r.admin.DeleteUpstream(ctx, &adminv1.DeleteUpstreamRequest{Name: "payments"})
	wantCode(t, err, codes.FailedPrecondition)
	if v := detail[*errdetails.PreconditionFailure](t, err).GetViolations(); len(v) != 1 || v[0].GetType() != "IN_USE" {
		t.Errorf("violations of deleting what is in use: %v", v)
	}
	dr, err := r.admin.DeleteRoute(ctx, &adminv1.DeleteRouteRequest{Name: "v2", Etag: pr.GetRoute().GetEtag()})
	must(err)
	dl, err := r.admin.DeleteListener(ctx, &adminv1.DeleteListenerRequest{Name: "web"})
	must(err)
	du, err := r.admin.DeleteUpstream(ctx, &adminv1.DeleteUpstreamRequest{Name: "payments"})
	must(err)
	dc, err := r.admin.DeleteCertificate(ctx, &adminv1.DeleteCertificateRequest{Name: "client"})
	must(err)
	db, err := r.admin.DeleteTrustBundle(ctx, &adminv1.DeleteTrustBundleRequest{Name: "corp"})
	must(err)
	for i, c := range []*adminv1.Change{dr.GetChange(), dl.GetChange(), du.GetChange(), dc.GetChange(), db.GetChange()} {
		if c.GetRevision() != int64(6+i) || c.GetChanges()[0].GetAction() != adminv1.ChangeAction_CHANGE_ACTION_DELETED {
			t.Errorf("delete %d answered %v", i, c)
		}
	}
}

func TestAMissingResourceIsNotFound(t *testing.T) {
	r := start(t)
	_, err := r.admin.GetCertificate(t.Context(), &adminv1.GetCertificateRequest{Name: "gone"})
	wantCode(t, err, codes.NotFound)
	if v := detail[*errdetails.BadRequest](t, err).GetFieldViolations(); v[0].GetField() != "name" || v[0].GetDescription() != `there is no certificate "gone"` {
		t.Errorf("violations = %v", v)
	}
	_, err = r.admin.DeleteRoute(t.Context(), &adminv1.DeleteRouteRequest{Name: "gone"})
	wantCode(t, err, codes.NotFound)
	_, err = r.admin.PutListener(t.Context(), &adminv1.PutListenerRequest{})
	wantCode(t, err, codes.InvalidArgument)
	if v := detail[*errdetails.BadRequest](t, err).GetFieldViolations(); v[0].GetField() != "listener" {
		t.Errorf("violations of an empty put: %v", v)
	}
}

func TestADryRunDescribesTheChangeAndMakesNone(t *testing.T) {
	r := start(t)
	res, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{
		Upstream: upstream("payments"), Options: &adminv1.WriteOptions{DryRun: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c := res.GetChange(); c.GetRevision() != 0 || c.GetChanges()[0].GetAction() != adminv1.ChangeAction_CHANGE_ACTION_CREATED {
		t.Errorf("change = %v", c)
	}
	if n := r.gateway.State().Len(adminv1.Kind_KIND_UPSTREAM); n != 0 {
		t.Errorf("%d upstreams after a dry run", n)
	}
}

func TestConcurrentWritesAreEachOneRevision(t *testing.T) {
	r := start(t)
	const writers, each = 8, 20
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int64]bool{}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				res, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream(fmt.Sprintf("u-%d-%d", w, i))})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				seen[res.GetChange().GetRevision()] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != writers*each || r.gateway.State().Revision() != writers*each {
		t.Errorf("%d revisions seen, the last is %d; want %d", len(seen), r.gateway.State().Revision(), writers*each)
	}
}
