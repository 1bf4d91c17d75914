package admin

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func watchConfig(t *testing.T, r *running) grpc.ServerStreamingClient[adminv1.WatchConfigResponse] {
	t.Helper()
	w, err := r.admin.WatchConfig(t.Context(), &adminv1.WatchConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestAWatchStartsWithEverythingAndGoesOnWithChanges(t *testing.T) {
	r := start(t)
	ctx := t.Context()
	putUpstreams(t, r, 2)
	w := watchConfig(t, r)
	first, err := w.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if first.GetRevision() != 1 || len(first.GetResources()) != 2 || len(first.GetChanges()) != 0 {
		t.Errorf("first message = %v", first)
	}
	_, err = r.admin.Apply(ctx, &adminv1.ApplyRequest{
		Resources: []*adminv1.Resource{store.Wrap(upstream("new"))},
		Deletes:   []*adminv1.ResourceRef{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u-0000"}},
		Options:   &adminv1.WriteOptions{Comment: "because"},
	})
	if err != nil {
		t.Fatal(err)
	}
	next, err := w.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if next.GetRevision() != 2 || next.GetComment() != "because" || len(next.GetChanges()) != 2 ||
		len(next.GetResources()) != 1 || next.GetResources()[0].GetUpstream().GetName() != "new" {
		t.Errorf("second message = %v", next)
	}
}

func TestAWatcherThatDoesNotReadIsEndedAndTheOthersGoOn(t *testing.T) {
	r := start(t)
	w := watchConfig(t, r)
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	// Larger than any window, so that the server's Send blocks until w reads.
	big := &adminv1.TrustBundle{Name: "big"}
	for i := 0; r.gateway.watching() > 0; i++ {
		big.Source = &adminv1.TrustBundle_Pem{Pem: fmt.Sprint(i, strings.Repeat("x", 256<<10))}
		if _, err := r.admin.PutTrustBundle(t.Context(), &adminv1.PutTrustBundleRequest{TrustBundle: big}); err != nil {
			t.Fatal(err)
		}
	}
	last, err := int64(0), error(nil)
	for err == nil {
		var m *adminv1.WatchConfigResponse
		if m, err = w.Recv(); err == nil {
			if m.GetRevision() != last+1 {
				t.Fatalf("revision %d after %d", m.GetRevision(), last)
			}
			last = m.GetRevision()
		}
	}
	wantCode(t, err, codes.ResourceExhausted)
	if info := detail[*errdetails.ErrorInfo](t, err); info.GetReason() != "WATCH_TOO_SLOW" {
		t.Errorf("ErrorInfo = %v", info)
	}
	again := watchConfig(t, r)
	if m, err := again.Recv(); err != nil || m.GetRevision() != r.gateway.State().Revision() {
		t.Errorf("watching again: %v, %v", m.GetRevision(), err)
	}
}

func TestAWatchThatItsClientEndsIsForgotten(t *testing.T) {
	r := start(t)
	conn := dial(t, r.socket)
	w, err := adminv1.NewAdminServiceClient(conn).WatchConfig(t.Context(), &adminv1.WatchConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for r.gateway.watching() > 0 {
		runtime.Gosched()
	}
	if _, err := w.Recv(); err == nil {
		t.Error("a closed watch still receives")
	}
}

func TestEventsAreStreamedFromTheHeaderOn(t *testing.T) {
	r := start(t)
	w, err := adminv1.NewStatusServiceClient(r.conn).WatchEvents(t.Context(), &adminv1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Header(); err != nil {
		t.Fatal(err)
	}
	for i := range int64(3) {
		r.gateway.happen(&adminv1.WatchEventsResponse{Type: adminv1.EventType_EVENT_TYPE_APPLIED, Revision: i})
	}
	for i := range int64(3) {
		e, err := w.Recv()
		if err != nil || e.GetRevision() != i {
			t.Fatalf("event %d: %v, %v", i, e, err)
		}
	}
}

func TestListCertificatesAnswersWhatTheGatewaySays(t *testing.T) {
	r := start(t)
	got, err := adminv1.NewStatusServiceClient(r.conn).ListCertificates(t.Context(), &adminv1.StatusServiceListCertificatesRequest{})
	if err != nil || len(got.GetCertificates()) != 1 || got.GetCertificates()[0].GetDaysLeft() != 3 {
		t.Errorf("%v, %v", got, err)
	}
}
