package admin

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func watchConfig(t *testing.T, r *running, req *adminv1.WatchConfigRequest) grpc.ServerStreamingClient[adminv1.WatchConfigResponse] {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w, err := r.admin.WatchConfig(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// synced receives up to a message with synced, and returns the messages.
func synced(t *testing.T, w grpc.ServerStreamingClient[adminv1.WatchConfigResponse]) []*adminv1.WatchConfigResponse {
	t.Helper()
	var all []*adminv1.WatchConfigResponse
	for {
		m, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, m); m.GetSynced() {
			return all
		}
	}
}

func TestAWatchSendsTheStateThenSyncedThenChanges(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 2)
	w := watchConfig(t, r, &adminv1.WatchConfigRequest{})
	state := synced(t, w)
	if len(state) != 2 || !state[0].GetReset_() || len(state[0].GetResources()) != 2 || state[1].GetReset_() || len(state[1].GetResources()) != 0 {
		t.Errorf("the state is %v", state)
	}
	for _, m := range state {
		if m.GetRevision() != 1 || m.GetInstanceId() != "store-1" || len(m.GetChanges()) != 0 {
			t.Errorf("a part of the state: %v", m)
		}
	}
	_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{
		Resources: []*adminv1.Resource{store.Wrap(upstream("new"))},
		Deletes:   []*adminv1.ResourceDelete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u-0000"}},
		Options:   &adminv1.WriteOptions{Comment: "because"},
	})
	if err != nil {
		t.Fatal(err)
	}
	next := synced(t, w)
	if len(next) != 1 || next[0].GetRevision() != 2 || next[0].GetComment() != "because" || len(next[0].GetChanges()) != 2 ||
		len(next[0].GetResources()) != 1 || next[0].GetResources()[0].GetUpstream().GetName() != "new" {
		t.Errorf("the change is %v", next)
	}
}

func TestAWatchResumesWhereItLeftOff(t *testing.T) {
	r := start(t)
	for i := range 5 {
		putUpstreams(t, r, i+1) // revision i+1 creates u-000i
	}
	// The watch sends only the changes since revision 3.
	w := watchConfig(t, r, &adminv1.WatchConfigRequest{InstanceId: "store-1", Revision: 3})
	for _, want := range []int64{4, 5} {
		m := synced(t, w)
		if len(m) != 1 || m[0].GetRevision() != want || m[0].GetReset_() || len(m[0].GetResources()) != 1 {
			t.Errorf("resumed with %v, want revision %d", m, want)
		}
	}
	// No revision was missed, as synced shows.
	if m := synced(t, watchConfig(t, r, &adminv1.WatchConfigRequest{InstanceId: "store-1", Revision: 5})); len(m) != 1 || m[0].GetReset_() || m[0].GetRevision() != 5 {
		t.Errorf("resumed with %v", m)
	}
	for name, req := range map[string]*adminv1.WatchConfigRequest{
		"another store":    {InstanceId: "store-0", Revision: 3},
		"a later revision": {InstanceId: "store-1", Revision: 6},
		"no revision":      {},
	} {
		if m := synced(t, watchConfig(t, r, req)); !m[0].GetReset_() || len(m[0].GetResources()) != 5 {
			t.Errorf("%s: %v", name, m)
		}
	}
	// If the gateway no longer keeps the changes, it sends the whole state.
	for i := range 20 {
		u := upstream("u-0000")
		u.Labels = map[string]string{"i": fmt.Sprint(i)}
		if _, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: u}); err != nil {
			t.Fatal(err)
		}
	}
	if m := synced(t, watchConfig(t, r, &adminv1.WatchConfigRequest{InstanceId: "store-1", Revision: 3})); !m[0].GetReset_() {
		t.Errorf("resumed with %v", m)
	}
}

// The state and each change come in messages of bounded size.
func TestAWatchSendsMuchInParts(t *testing.T) {
	r := start(t)
	const bundles = 40
	req := &adminv1.ApplyRequest{}
	for i := range bundles {
		req.Resources = append(req.Resources, store.Wrap(&adminv1.TrustBundle{Name: fmt.Sprint("b", i), Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat("x", chunkBytes/4)}}))
	}
	w := watchConfig(t, r, &adminv1.WatchConfigRequest{})
	synced(t, w)
	if _, err := r.admin.Apply(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for name, parts := range map[string][]*adminv1.WatchConfigResponse{
		"the change": synced(t, w),
		"the state":  synced(t, watchConfig(t, r, &adminv1.WatchConfigRequest{})),
	} {
		seen := 0
		for _, m := range parts {
			if len(m.GetResources()) > 4 || m.GetRevision() != 1 {
				t.Errorf("%s: a part has %d resources of revision %d", name, len(m.GetResources()), m.GetRevision())
			}
			seen += len(m.GetResources())
		}
		if seen != bundles || len(parts) < bundles/4 {
			t.Errorf("%s: %d resources in %d parts", name, seen, len(parts))
		}
	}
}

func TestAWatcherThatDoesNotReadIsEnded(t *testing.T) {
	r := start(t, func(o *Options) { o.SendTimeout = 50 * time.Millisecond })
	req := &adminv1.ApplyRequest{}
	for i := range 40 { // larger than all windows, so that Send blocks
		req.Resources = append(req.Resources, store.Wrap(&adminv1.TrustBundle{Name: fmt.Sprint("b", i), Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat("x", 100<<10)}}))
	}
	if _, err := r.admin.Apply(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	w := watchConfig(t, r, &adminv1.WatchConfigRequest{})
	if _, err := w.Header(); err != nil { // arrives with the first message
		t.Fatal(err)
	}
	for r.opened() > 0 { // the stream ends although the client does not read
		time.Sleep(time.Millisecond)
	}
	var err error
	for err == nil {
		_, err = w.Recv()
	}
	wantCode(t, err, codes.ResourceExhausted)
	if info := detail[*errdetails.ErrorInfo](t, err); info.GetReason() != "WATCH_TOO_SLOW" {
		t.Errorf("ErrorInfo = %v", info)
	}
}

// opened returns how many streams are open.
func (r *running) opened() int {
	r.open.mu.Lock()
	defer r.open.mu.Unlock()
	n := 0
	for _, streams := range r.open.by {
		n += streams
	}
	return n
}

func TestStreamsPerCallerAreLimited(t *testing.T) {
	r := start(t)
	conn := dial(t, r.socket)
	client := adminv1.NewStatusServiceClient(conn)
	open := func() error {
		w, err := client.WatchEvents(t.Context(), &adminv1.WatchEventsRequest{})
		if err != nil {
			return err
		}
		h, err := w.Header()
		if err == nil && h == nil { // the stream has already ended
			_, err = w.Recv()
		}
		return err
	}
	for i := range maxStreamsPerCaller {
		if err := open(); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	err := open()
	wantCode(t, err, codes.ResourceExhausted)
	if info := detail[*errdetails.ErrorInfo](t, err); info.GetReason() != "TOO_MANY_STREAMS" {
		t.Errorf("ErrorInfo = %v", info)
	}
	if _, err := r.status.GetStatus(t.Context(), &adminv1.GetStatusRequest{}); err != nil {
		t.Errorf("another call: %v", err)
	}
	conn.Close()
	for r.opened() > 0 {
		runtime.Gosched()
	}
	if err := func() error { client = adminv1.NewStatusServiceClient(r.conn); return open() }(); err != nil {
		t.Errorf("a stream after the others ended: %v", err)
	}
}

func TestCanceledWatchFreesItsStream(t *testing.T) {
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
	for r.opened() > 0 {
		runtime.Gosched()
	}
	if _, err := w.Recv(); err == nil {
		t.Error("a closed watch still receives")
	}
}

func watchEvents(t *testing.T, r *running, req *adminv1.WatchEventsRequest) grpc.ServerStreamingClient[adminv1.Event] {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w, err := r.status.WatchEvents(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Header(); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestEventsAreStreamedFromTheHeaderOn(t *testing.T) {
	r := start(t)
	r.gateway.happen(&adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_APPLIED, Revision: 99})
	w := watchEvents(t, r, &adminv1.WatchEventsRequest{})
	for i := range int64(3) {
		r.gateway.happen(&adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_APPLIED, Revision: i})
	}
	for i := range int64(3) {
		e, err := w.Recv()
		if err != nil || e.GetRevision() != i || e.GetSequence() != 102+i {
			t.Fatalf("event %d: %v, %v", i, e, err)
		}
	}
}

func TestEventsAreFilteredAndResumed(t *testing.T) {
	r := start(t)
	for i := range int64(10) { // sequences 101 to 110
		e := &adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH, Kind: adminv1.Kind_KIND_UPSTREAM, Name: fmt.Sprint("u", i%2)}
		if i%5 == 4 {
			e = &adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_APPLIED, Revision: i}
		}
		r.gateway.happen(e)
	}
	after := func(n int64) *int64 { return &n }
	for name, c := range map[string]struct {
		req  *adminv1.WatchEventsRequest
		want []int64
	}{
		"all stored events":         {&adminv1.WatchEventsRequest{AfterSequence: after(0)}, []int64{101, 102, 103}},
		"events after the last one": {&adminv1.WatchEventsRequest{AfterSequence: after(108)}, []int64{109, 110}},
		"by type":                   {&adminv1.WatchEventsRequest{AfterSequence: after(0), Types: []adminv1.EventType{adminv1.EventType_EVENT_TYPE_APPLIED}}, []int64{105, 110}},
		"by kind and name":          {&adminv1.WatchEventsRequest{AfterSequence: after(103), Kinds: []adminv1.Kind{adminv1.Kind_KIND_UPSTREAM}, Names: []string{"u1"}}, []int64{104, 106, 108}},
	} {
		w := watchEvents(t, r, c.req)
		for _, want := range c.want {
			if e, err := w.Recv(); err != nil || e.GetSequence() != want {
				t.Errorf("%s: %v, %v; want %d", name, e, err, want)
			}
		}
	}
	for range 20 { // the log keeps 16: 115 to 130
		r.gateway.happen(&adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_APPLIED})
	}
	for from, missed := range map[int64]int64{107: 7, 999: 0} {
		w := watchEvents(t, r, &adminv1.WatchEventsRequest{AfterSequence: after(from)})
		e, err := w.Recv()
		if err != nil || e.GetType() != adminv1.EventType_EVENT_TYPE_MISSED || e.GetCount() != missed {
			t.Errorf("after %d: %v, %v; want %d missed", from, e, err, missed)
		}
		if e, err := w.Recv(); err != nil || e.GetSequence() != 115 {
			t.Errorf("after %d: %v, %v", from, e, err)
		}
	}
}
