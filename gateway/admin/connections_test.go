package admin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestConnectionsAreListedInPages(t *testing.T) {
	r := start(t)
	req := &adminv1.ListConnectionsRequest{PageSize: 2, ConnectionFilter: &adminv1.ConnectionFilter{Listeners: []string{"web"}}}
	first, err := r.status.ListConnections(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	req.PageToken = first.GetNextPageToken()
	second, err := r.status.ListConnections(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range append(first.GetConnections(), second.GetConnections()...) {
		ids = append(ids, c.GetId())
	}
	if len(first.GetConnections()) != 2 || strings.Join(ids, " ") != "1 2 3" || second.GetNextPageToken() != "" {
		t.Errorf("the pages hold %v, the first one %d; the last token is %q", ids, len(first.GetConnections()), second.GetNextPageToken())
	}
	// A page token is valid only with the filter that it was issued for.
	req.ConnectionFilter.Listeners = []string{"web", "db"}
	_, err = r.status.ListConnections(t.Context(), req)
	wantFaults(t, err, "page_token")
	_, err = r.status.ListConnections(t.Context(), &adminv1.ListConnectionsRequest{ConnectionFilter: &adminv1.ConnectionFilter{Listeners: []string{"db"}}})
	wantFaults(t, err, "connection_filter.listeners")
}

func TestACloseForwardsItsFilterAndGrace(t *testing.T) {
	r := start(t)
	db := &adminv1.ConnectionFilter{Listeners: []string{"db"}, MinAge: durationpb.New(time.Minute)}
	for _, c := range []struct {
		name string
		req  *adminv1.CloseConnectionsRequest
		want string // the filter and grace of the closed connections; "" if the request is refused
		bad  []string
	}{
		{"at once", &adminv1.CloseConnectionsRequest{ConnectionFilter: db}, "listeners=[db] min_age=1m0s 0s", nil},
		{"with grace", &adminv1.CloseConnectionsRequest{ConnectionFilter: db, Grace: durationpb.New(time.Hour)}, "listeners=[db] min_age=1m0s 1h0m0s", nil},
		{"all connections", &adminv1.CloseConnectionsRequest{All: true, ConnectionFilter: &adminv1.ConnectionFilter{}}, " 0s", nil},
		{"nothing selected", &adminv1.CloseConnectionsRequest{}, "", []string{"connection_filter"}},
		{"an empty filter", &adminv1.CloseConnectionsRequest{ConnectionFilter: &adminv1.ConnectionFilter{Ids: []string{}}}, "", []string{"connection_filter"}},
		{"all connections and a filter", &adminv1.CloseConnectionsRequest{All: true, ConnectionFilter: db}, "", []string{"all"}},
		{"too long", &adminv1.CloseConnectionsRequest{ConnectionFilter: db, Grace: durationpb.New(25 * time.Hour)}, "", []string{"grace"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.gateway.drained = ""
			resp, err := r.diagnostics.CloseConnections(t.Context(), c.req)
			if len(c.bad) > 0 {
				wantFaults(t, err, c.bad...)
			} else if err != nil || resp.GetConnections() != 2 {
				t.Errorf("%v, %v", resp, err)
			}
			if r.gateway.drained != c.want {
				t.Errorf("closed %q, want %q", r.gateway.drained, c.want)
			}
		})
	}
}

func TestListenersAndClientsAreDrained(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 1)
	put := &adminv1.Listener{Name: "web", Address: "127.0.0.1:0", Protocol: adminv1.Protocol_PROTOCOL_HTTP, Upstream: "u-0000"}
	if _, err := r.admin.PutListener(t.Context(), &adminv1.PutListenerRequest{Listener: put}); err != nil {
		t.Fatal(err)
	}
	hex := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name string
		req  *adminv1.DrainConnectionsRequest
		want string
		bad  []string
	}{
		{"a listener", &adminv1.DrainConnectionsRequest{Listeners: []string{"web"}}, "listeners=[web] 30s", nil},
		{"a client", &adminv1.DrainConnectionsRequest{ClientIdentities: []string{"CN=a"}, Period: durationpb.New(0)}, "client_identities=[CN=a] 0s", nil},
		{"a client of a listener", &adminv1.DrainConnectionsRequest{Listeners: []string{"web"}, ClientIdentities: []string{"CN=a", "spiffe://corp/b"}},
			"listeners=[web] client_identities=[CN=a, spiffe://corp/b] 30s", nil},
		{"no field", &adminv1.DrainConnectionsRequest{}, "", []string{"upstream"}},
		{"an upstream and a listener", &adminv1.DrainConnectionsRequest{Upstream: "u-0000", Listeners: []string{"web"}}, "", []string{"upstream"}},
		{"the gateway's certificate, with a listener", &adminv1.DrainConnectionsRequest{Listeners: []string{"web"}, Sha256Fingerprint: hex}, "", []string{"sha256_fingerprint"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.gateway.drained = ""
			_, err := r.diagnostics.DrainConnections(t.Context(), c.req)
			if len(c.bad) > 0 {
				wantFaults(t, err, c.bad...)
			} else if err != nil {
				t.Error(err)
			}
			if r.gateway.drained != c.want {
				t.Errorf("drained %q, want %q", r.gateway.drained, c.want)
			}
		})
	}
	_, err := r.diagnostics.DrainConnections(t.Context(), &adminv1.DrainConnectionsRequest{Listeners: []string{"web", "none"}})
	wantCode(t, err, codes.NotFound)
}

// wantFaults checks that a request was refused because of exactly these fields.
func wantFaults(t *testing.T, err error, fields ...string) {
	t.Helper()
	wantCode(t, err, codes.InvalidArgument)
	var got []string
	for _, v := range detail[*errdetails.BadRequest](t, err).GetFieldViolations() {
		got = append(got, v.GetField())
	}
	if !slices.Equal(got, fields) {
		t.Errorf("faults of %q, want %q", got, fields)
	}
}
