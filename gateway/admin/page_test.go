package admin

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestPagesHoldEveryResourceOnce(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 2500)
	for _, tt := range []struct {
		size  int32
		pages []int
	}{
		{0, []int{1000, 1000, 500}},
		{1000, []int{1000, 1000, 500}},
		{2_000_000_000, []int{1000, 1000, 500}}, // more than a page may have
		{900, []int{900, 900, 700}},
		{500, []int{500, 500, 500, 500, 500}}, // no empty page at the end
	} {
		next, token := 0, ""
		for page, want := range tt.pages {
			res, err := r.admin.ListUpstreams(t.Context(), &adminv1.ListUpstreamsRequest{PageSize: tt.size, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if len(res.GetUpstreams()) != want {
				t.Fatalf("size %d: page %d has %d, want %d", tt.size, page, len(res.GetUpstreams()), want)
			}
			for _, u := range res.GetUpstreams() {
				if name := fmt.Sprintf("u-%04d", next); u.GetName() != name {
					t.Fatalf("size %d: got %s, want %s", tt.size, u.GetName(), name)
				}
				next++
			}
			token = res.GetNextPageToken()
			if last := page == len(tt.pages)-1; last != (token == "") {
				t.Fatalf("size %d: token %q after page %d", tt.size, token, page)
			}
		}
	}
}

func TestATokenSurvivesTheDeletionOfItsResource(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 4)
	first, err := r.admin.ListUpstreams(t.Context(), &adminv1.ListUpstreamsRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.DeleteUpstream(t.Context(), &adminv1.DeleteUpstreamRequest{Name: "u-0001"}); err != nil {
		t.Fatal(err)
	}
	second, err := r.admin.ListUpstreams(t.Context(), &adminv1.ListUpstreamsRequest{PageSize: 2, PageToken: first.GetNextPageToken()})
	if err != nil {
		t.Fatal(err)
	}
	if u := second.GetUpstreams(); len(u) != 2 || u[0].GetName() != "u-0002" || second.GetNextPageToken() != "" {
		t.Errorf("second page = %v", second)
	}
}

func TestAPageOfLargeResourcesIsShorter(t *testing.T) {
	var all []store.Resource
	for i := range 10 {
		all = append(all, &adminv1.TrustBundle{
			Name:   fmt.Sprintf("b-%d", i),
			Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat("x", maxPageBytes/2-100)},
		})
	}
	all = append(all, &adminv1.TrustBundle{Name: "huge", Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat("x", 2*maxPageBytes)}})
	state, err := store.Restore(1, all)
	if err != nil {
		t.Fatal(err)
	}
	token, seen := "", 0
	for _, want := range []int{2, 2, 2, 2, 2, 1} {
		page, next, err := pageOf(state, adminv1.Kind_KIND_TRUST_BUNDLE, 0, token)
		if err != nil || len(page) != want {
			t.Fatalf("a page of %d, %v; want %d", len(page), err, want)
		}
		token, seen = next, seen+want
	}
	if token != "" || seen != len(all) {
		t.Errorf("%d of %d seen, token %q", seen, len(all), token)
	}
}

func TestABadPageTokenIsRefused(t *testing.T) {
	r := start(t)
	for _, token := range []string{
		"x", "!", "AAAA", strings.Repeat("A", 1<<20), "3/u", "\n",
		formatToken(adminv1.Kind_KIND_ROUTE, "u-0000"), // of another method
		formatToken(adminv1.Kind_KIND_UPSTREAM, ""),
	} {
		_, err := r.admin.ListUpstreams(t.Context(), &adminv1.ListUpstreamsRequest{PageToken: token})
		wantCode(t, err, codes.InvalidArgument)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("")
	f.Add(formatToken(adminv1.Kind_KIND_UPSTREAM, "payments"))
	f.Fuzz(func(t *testing.T, token string) {
		last, ok := parseToken(adminv1.Kind_KIND_UPSTREAM, token)
		if ok && formatToken(adminv1.Kind_KIND_UPSTREAM, last) != token {
			t.Errorf("%q is read as %q, which is written %q", token, last, formatToken(adminv1.Kind_KIND_UPSTREAM, last))
		}
	})
}
