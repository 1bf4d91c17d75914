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
		{2_000_000_000, []int{1000, 1000, 500}}, // a size above the limit of a page
		{900, []int{900, 900, 700}},
		{500, []int{500, 500, 500, 500, 500}}, // must not end with an empty page
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
		page, next, err := pageOf(state.List(adminv1.Kind_KIND_TRUST_BUNDLE), "bundles", &adminv1.ListTrustBundlesRequest{PageToken: token},
			func(r store.Resource) (store.Resource, bool) { return r, true })
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
		formatToken("KIND_ROUTE?", "u-0000"),       // a token of another method
		formatToken("KIND_UPSTREAM?a=b", "u-0000"), // a token of another selector
		formatToken("KIND_UPSTREAM?", 7),
	} {
		_, err := r.admin.ListUpstreams(t.Context(), &adminv1.ListUpstreamsRequest{PageToken: token})
		wantCode(t, err, codes.InvalidArgument)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("")
	f.Add(formatToken("list", CertificateKey{NotAfter: 5, Name: "payments", Endpoint: "unix:/a b"}))
	f.Fuzz(func(t *testing.T, token string) {
		last, err := parseToken[CertificateKey]("list", token)
		if err == nil && last != nil && formatToken("list", *last) != token {
			t.Errorf("%q is read as %v, which is written %q", token, *last, formatToken("list", *last))
		}
	})
}

func TestListsAreFilteredByLabels(t *testing.T) {
	r := start(t)
	req := &adminv1.ApplyRequest{}
	for i := range 30 {
		u := upstream(fmt.Sprintf("u-%02d", i))
		u.Labels = map[string]string{"team": fmt.Sprint(i % 3)}
		req.Resources = append(req.Resources, store.Wrap(u))
	}
	if _, err := r.admin.Apply(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	const selector = "team in (0,1),team!=1"
	seen, token := 0, ""
	for page := 0; page == 0 || token != ""; page++ {
		res, err := r.admin.ListUpstreams(t.Context(), &adminv1.ListUpstreamsRequest{PageSize: 4, PageToken: token, LabelSelector: selector})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range res.GetUpstreams() {
			if u.GetLabels()["team"] != "0" {
				t.Errorf("%v", u)
			}
			seen++
		}
		token = res.GetNextPageToken()
		if token != "" { // valid only with this selector
			_, err := r.admin.ListUpstreams(t.Context(), &adminv1.ListUpstreamsRequest{PageToken: token})
			wantCode(t, err, codes.InvalidArgument)
		}
	}
	if seen != 10 {
		t.Errorf("%d upstreams", seen)
	}
	states, err := r.status.ListUpstreams(t.Context(), &adminv1.ListUpstreamStatusesRequest{LabelSelector: selector})
	if err != nil || len(states.GetUpstreams()) != 10 {
		t.Errorf("%d states, %v", len(states.GetUpstreams()), err)
	}
	_, err = r.admin.ListUpstreams(t.Context(), &adminv1.ListUpstreamsRequest{LabelSelector: "team"})
	wantCode(t, err, codes.InvalidArgument)
}

// Every list method answers in pages that together hold each entry exactly
// once.
func TestEveryListIsPaged(t *testing.T) {
	r := start(t)
	req := &adminv1.ApplyRequest{}
	const each = 23
	for i := range each {
		name := fmt.Sprintf("x-%02d", i)
		req.Resources = append(req.Resources, store.Wrap(upstream(name)), store.Wrap(listener(name, name)))
	}
	if _, err := r.admin.Apply(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for method, list := range map[string]func(token string) (entries []string, next string, err error){
		"GetConfig": func(token string) (out []string, _ string, _ error) {
			a, err := r.admin.GetConfig(t.Context(), &adminv1.GetConfigRequest{PageSize: 10, PageToken: token})
			for _, res := range a.GetResources() {
				out = append(out, res.GetListener().GetName()+"/"+res.GetUpstream().GetName())
			}
			return out, a.GetNextPageToken(), err
		},
		"GetStatus": func(token string) (out []string, _ string, _ error) {
			a, err := r.status.GetStatus(t.Context(), &adminv1.GetStatusRequest{PageSize: 10, PageToken: token})
			for _, l := range a.GetListeners() {
				out = append(out, l.GetName()+l.GetState().String())
			}
			return out, a.GetNextPageToken(), err
		},
		"ListUpstreams": func(token string) (out []string, _ string, _ error) {
			a, err := r.status.ListUpstreams(t.Context(), &adminv1.ListUpstreamStatusesRequest{PageSize: 10, PageToken: token})
			for _, u := range a.GetUpstreams() {
				out = append(out, u.GetName())
			}
			return out, a.GetNextPageToken(), err
		},
		"ListCertificates": func(token string) (out []string, _ string, _ error) {
			a, err := r.status.ListCertificates(t.Context(), &adminv1.ListCertificatesInUseRequest{PageSize: 10, PageToken: token})
			for _, c := range a.GetCertificates() {
				out = append(out, c.GetName())
			}
			return out, a.GetNextPageToken(), err
		},
	} {
		seen, pages := map[string]bool{}, 0
		for token := ""; pages == 0 || token != ""; pages++ {
			entries, next, err := list(token)
			if err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			for _, e := range entries {
				if seen[e] {
					t.Errorf("%s: %s is listed twice", method, e)
				}
				seen[e] = true
			}
			token = next
		}
		want := map[string]int{"GetConfig": 2 * each, "GetStatus": each + 1}[method]
		if want == 0 {
			want = each
		}
		if len(seen) != want || pages != (want+9)/10 {
			t.Errorf("%s: %d entries on %d pages, want %d", method, len(seen), pages, want)
		}
		_, _, err := list(formatToken("other", "x-00"))
		wantCode(t, err, codes.InvalidArgument)
	}

	// All pages of the configuration must show the same revision.
	a, err := r.admin.GetConfig(t.Context(), &adminv1.GetConfigRequest{PageSize: 10})
	if err != nil {
		t.Fatal(err)
	}
	putUpstreams(t, r, 1)
	_, err = r.admin.GetConfig(t.Context(), &adminv1.GetConfigRequest{PageToken: a.GetNextPageToken()})
	wantCode(t, err, codes.Aborted)
}
