package admin

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// putAddress changes the address of an upstream's endpoint.
func putAddress(t *testing.T, r *running, name, address, comment string) {
	t.Helper()
	u := upstream(name)
	u.Endpoints[0].Address = address
	if _, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: u, Options: &adminv1.WriteOptions{Comment: comment}}); err != nil {
		t.Fatal(err)
	}
}

func TestRevisionsAreListedLatestFirstInPages(t *testing.T) {
	r := start(t)
	const n = 7
	for i := 1; i <= n; i++ {
		putAddress(t, r, "u", fmt.Sprintf("127.0.0.1:%d", i), fmt.Sprint("change ", i))
	}
	var got []string
	for token := ""; ; {
		page, err := r.admin.ListRevisions(t.Context(), &adminv1.ListRevisionsRequest{PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, rev := range page.GetRevisions() {
			got = append(got, fmt.Sprintf("%d %s", rev.GetRevision(), rev.GetComment()))
			if !strings.HasPrefix(rev.GetPrincipal(), "uid:") || rev.GetTransport() != adminv1.Transport_TRANSPORT_UNIX ||
				rev.GetMethod() != adminv1.AdminService_PutUpstream_FullMethodName || rev.GetChangeCount() != 1 {
				t.Errorf("%v", rev)
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
		putAddress(t, r, "other", fmt.Sprintf("127.0.0.1:%d", len(got)), "in between") // does not disturb the pages
	}
	if want := "7 change 7,6 change 6,5 change 5,4 change 4,3 change 3,2 change 2,1 change 1"; strings.Join(got, ",") != want {
		t.Errorf("%q", got)
	}
	if _, err := r.admin.GetRevision(t.Context(), &adminv1.GetRevisionRequest{Revision: 3}); err != nil {
		t.Error(err)
	}
	for _, n := range []int64{0, 1000} {
		_, err := r.admin.GetRevision(t.Context(), &adminv1.GetRevisionRequest{Revision: n})
		wantCode(t, err, codes.NotFound)
	}
}

func TestADiffPagesThroughTheResourcesOfTwoRevisions(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 5)
	for i := range 5 {
		putAddress(t, r, fmt.Sprintf("u-%04d", i), "127.0.0.1:2", "")
	}
	var got []string
	for token := ""; ; {
		page, err := r.admin.DiffRevisions(t.Context(), &adminv1.DiffRevisionsRequest{From: 1, PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if page.GetTo() != 6 {
			t.Errorf("compared to revision %d", page.GetTo())
		}
		for _, c := range page.GetChanges() {
			if c.GetAction() != adminv1.ChangeAction_CHANGE_ACTION_UPDATED || len(c.GetFields()) != 1 ||
				c.GetFields()[0].GetBefore() != `"127.0.0.1:1"` || c.GetFields()[0].GetAfter() != `"127.0.0.1:2"` {
				t.Errorf("%v", c)
			}
			got = append(got, c.GetName())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
		putAddress(t, r, "another", fmt.Sprintf("127.0.0.1:%d", len(got)), "") // is not part of the diff
	}
	if strings.Join(got, " ") != "u-0000 u-0001 u-0002 u-0003 u-0004" {
		t.Errorf("%q", got)
	}
	back, err := r.admin.DiffRevisions(t.Context(), &adminv1.DiffRevisionsRequest{From: 2, To: proto.Int64(0)})
	if err != nil || len(back.GetChanges()) != 5 || back.GetChanges()[0].GetAction() != adminv1.ChangeAction_CHANGE_ACTION_DELETED {
		t.Errorf("%v, %v", back, err)
	}
	_, err = r.admin.DiffRevisions(t.Context(), &adminv1.DiffRevisionsRequest{From: 1000})
	wantCode(t, err, codes.NotFound)
}

func TestARollbackIsAWriteLikeAnyOther(t *testing.T) {
	r := start(t)
	putAddress(t, r, "u", "127.0.0.1:1", "")
	putAddress(t, r, "u", "127.0.0.1:2", "")
	putAddress(t, r, "v", "127.0.0.1:3", "")

	dry, err := r.admin.Rollback(t.Context(), &adminv1.RollbackRequest{Revision: proto.Int64(1), Options: &adminv1.WriteOptions{DryRun: true}})
	if err != nil || len(dry.GetChange().GetChanges()) != 2 || len(dry.GetChange().GetChanges()[0].GetFields()) != 1 || r.gateway.State().Revision() != 3 {
		t.Fatalf("%v, %v", dry, err)
	}
	_, err = r.admin.Rollback(t.Context(), &adminv1.RollbackRequest{Revision: proto.Int64(1), ExpectedRevision: proto.Int64(2)})
	wantCode(t, err, codes.Aborted)
	_, err = r.admin.Rollback(t.Context(), &adminv1.RollbackRequest{})
	wantCode(t, err, codes.InvalidArgument)
	_, err = r.admin.Rollback(t.Context(), &adminv1.RollbackRequest{Revision: proto.Int64(1), Options: &adminv1.WriteOptions{CreateOnly: true}})
	wantCode(t, err, codes.InvalidArgument)
	_, err = r.admin.Rollback(t.Context(), &adminv1.RollbackRequest{Revision: proto.Int64(4)})
	wantCode(t, err, codes.NotFound)

	done, err := r.admin.Rollback(t.Context(), &adminv1.RollbackRequest{Revision: proto.Int64(1)})
	if err != nil || done.GetChange().GetRevision() != 4 {
		t.Fatalf("%v, %v", done, err)
	}
	if s := r.gateway.State(); s.Get(adminv1.Kind_KIND_UPSTREAM, "v") != nil || s.Get(adminv1.Kind_KIND_UPSTREAM, "u").(*adminv1.Upstream).GetEndpoints()[0].GetAddress() != "127.0.0.1:1" {
		t.Error("the resources are not those of revision 1")
	}
	rev, err := r.admin.GetRevision(t.Context(), &adminv1.GetRevisionRequest{Revision: 4})
	if err != nil || rev.GetRollbackTo() != 1 || rev.GetComment() != "back to revision 1" || rev.GetMethod() != adminv1.AdminService_Rollback_FullMethodName {
		t.Errorf("%v, %v", rev, err)
	}
}

// Clients with gRPC's default limit can read the answer for any number of differing
// fields.
func TestManyChangedFieldsAreCounted(t *testing.T) {
	const n = 40_000
	r := start(t)
	u := upstream("u")
	if _, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: u}); err != nil {
		t.Fatal(err)
	}
	for range n {
		u.Endpoints = append(u.Endpoints, &adminv1.Endpoint{Address: "payments.internal.example:443"})
	}
	dry, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: u, Options: &adminv1.WriteOptions{DryRun: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: []*adminv1.Resource{store.Wrap(u)}}); err != nil {
		t.Fatal(err)
	}
	diff, err := r.admin.DiffRevisions(t.Context(), &adminv1.DiffRevisionsRequest{From: 1})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]*adminv1.ResourceChange{"dry run": dry.GetChange().GetChanges()[0], "diff": diff.GetChanges()[0]} {
		if c.GetFieldCount() < n || len(c.GetFields()) != maxFields {
			t.Errorf("%s: %d of %d fields are listed", what, len(c.GetFields()), c.GetFieldCount())
		}
	}
}

// If another write lands first, the rollback is drafted again, so that it still
// restores the whole revision.
func TestARollbackIsDraftedAgainAfterAConcurrentWrite(t *testing.T) {
	r := start(t)
	putAddress(t, r, "u", "127.0.0.1:1", "")
	putAddress(t, r, "u", "127.0.0.1:2", "")
	first := true
	r.gateway.before = func(ctx context.Context, e store.Edit) {
		if first && e.Rollback != nil {
			first = false
			if _, err := r.gateway.Apply(ctx, store.Edit{Puts: []store.Put{{Resource: upstream("late")}}}); err != nil {
				t.Error(err)
			}
		}
	}
	done, err := r.admin.Rollback(t.Context(), &adminv1.RollbackRequest{Revision: proto.Int64(1)})
	if err != nil || done.GetChange().GetRevision() != 4 || r.gateway.State().Get(adminv1.Kind_KIND_UPSTREAM, "late") != nil {
		t.Errorf("%v, %v", done, err)
	}
}

// A client that lost the answer to a rollback sends the same request again. The
// request fails only if it would change something.
func TestARepeatedRollbackSucceedsWithAStaleRevision(t *testing.T) {
	r := start(t)
	putAddress(t, r, "u", "127.0.0.1:1", "")
	putAddress(t, r, "u", "127.0.0.1:2", "")
	back := func() (*adminv1.Change, error) {
		done, err := r.admin.Rollback(t.Context(), &adminv1.RollbackRequest{Revision: proto.Int64(1), ExpectedRevision: proto.Int64(2)})
		return done.GetChange(), err
	}
	for range 2 {
		if change, err := back(); err != nil || change.GetRevision() != 3 {
			t.Fatalf("%v, %v", change, err)
		}
	}
	// A write that lands between the rollback's draft and its check must not count
	// as revision 1.
	r.gateway.before = func(ctx context.Context, e store.Edit) {
		r.gateway.before = nil
		if _, err := r.gateway.Apply(ctx, store.Edit{Puts: []store.Put{{Resource: upstream("other")}}}); err != nil {
			t.Error(err)
		}
	}
	_, err := back()
	wantCode(t, err, codes.Aborted)
	_, err = back()
	wantCode(t, err, codes.Aborted)
	if n := r.gateway.State().Revision(); n != 4 {
		t.Errorf("revision %d", n)
	}
}

// Neither a dry run nor a diff shows a key.
func TestADryRunNamesTheFieldsThatWouldChange(t *testing.T) {
	r := start(t)
	cert := func(key string) *adminv1.Certificate {
		return &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: "chain", PrivateKey: key}}}
	}
	if _, err := r.admin.PutCertificate(t.Context(), &adminv1.PutCertificateRequest{Certificate: cert("first secret")}); err != nil {
		t.Fatal(err)
	}
	dry, err := r.admin.PutCertificate(t.Context(), &adminv1.PutCertificateRequest{Certificate: cert("second secret"), Options: &adminv1.WriteOptions{DryRun: true}})
	if err != nil {
		t.Fatal(err)
	}
	fields := dry.GetChange().GetChanges()[0].GetFields()
	if len(fields) != 1 || fields[0].GetPath() != "pem.private_key" || !fields[0].GetFingerprints() || fields[0].GetBefore() == fields[0].GetAfter() || strings.Contains(dry.String(), "first secret") || strings.Contains(dry.String(), "second secret") {
		t.Errorf("%v", fields)
	}
	diff, err := r.admin.DiffRevisions(t.Context(), &adminv1.DiffRevisionsRequest{})
	if err != nil || len(diff.GetChanges()) != 1 || strings.Contains(diff.String(), "first secret") {
		t.Errorf("%v, %v", diff, err)
	}
	wet, err := r.admin.PutCertificate(t.Context(), &adminv1.PutCertificateRequest{Certificate: cert("second secret")})
	if err != nil || len(wet.GetChange().GetChanges()[0].GetFields()) != 0 {
		t.Errorf("%v, %v", wet, err)
	}
}

func TestConfirmWithinIsCheckedAndForwarded(t *testing.T) {
	r := start(t)
	put := func(within time.Duration, u *adminv1.Upstream) (*adminv1.PutUpstreamResponse, error) {
		return r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: u, Options: &adminv1.WriteOptions{ConfirmWithin: durationpb.New(within)}})
	}
	for _, within := range []time.Duration{-time.Second, 0, time.Second - 1, 24*time.Hour + 1} {
		_, err := put(within, &adminv1.Upstream{Name: "No Name"})
		wantCode(t, err, codes.InvalidArgument)
		if text := err.Error(); !strings.Contains(text, "options.confirm_within") || !strings.Contains(text, "upstream.name") {
			t.Errorf("%v: not every fault is listed: %v", within, err)
		}
	}
	if r.gateway.State().Revision() != 0 {
		t.Error("something changed")
	}
	done, err := put(time.Minute, upstream("u"))
	if err != nil || done.GetChange().GetPending().GetRevision() != 1 || done.GetChange().GetPending().GetExpireTime().AsTime().Before(time.Now()) {
		t.Errorf("%v, %v", done, err)
	}
	confirmed, err := r.admin.Confirm(t.Context(), &adminv1.ConfirmRequest{Revision: 1})
	if err != nil || !strings.HasPrefix(confirmed.GetRevision().GetConfirmPrincipal(), "uid:") {
		t.Errorf("%v, %v", confirmed, err)
	}
	_, err = r.admin.Confirm(t.Context(), &adminv1.ConfirmRequest{Revision: 2})
	wantCode(t, err, codes.FailedPrecondition)
	if d := detail[*errdetails.PreconditionFailure](t, err); d.GetViolations()[0].GetType() != "PENDING" {
		t.Errorf("%v", d)
	}
}
