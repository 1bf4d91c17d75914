package admin

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

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
	// A token belongs to its filter.
	req.ConnectionFilter.Listeners = []string{"web", "db"}
	_, err = r.status.ListConnections(t.Context(), req)
	wantFaults(t, err, "page_token")
	_, err = r.status.ListConnections(t.Context(), &adminv1.ListConnectionsRequest{ConnectionFilter: &adminv1.ConnectionFilter{Listeners: []string{"db"}}})
	wantFaults(t, err, "connection_filter.listeners")
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
