package admin

import (
	"encoding/base64"
	"encoding/json"
	"sort"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	maxPage = 1000 // entries on a page, also the default

	// A page has at most this many bytes, or one entry if that is larger: many gRPC
	// clients reject messages above 4 MiB, and a call holds its whole response in
	// memory.
	maxPageBytes = 1 << 20

	maxToken = 4 << 10 // bytes of a page token
)

// A page collects the entries of a response until it is full.
type page struct {
	entries, bytes, most int
}

func newPage(size int32) *page {
	most := maxPage
	if size > 0 {
		most = min(int(size), maxPage)
	}
	return &page{most: most}
}

// takes adds m to the page, or returns false if the page is full.
func (p *page) takes(m proto.Message) bool {
	n := proto.Size(m)
	if p.entries > 0 && (p.entries == p.most || p.bytes+n > maxPageBytes) {
		return false
	}
	p.entries++
	p.bytes += n
	return true
}

// A token says where a page begins: after the entry with the key K, by which the
// method orders its entries. It is base64 because clients must treat it as opaque.
type token[K any] struct {
	List string // the method and the other parameters of the list
	Last K
}

// formatToken returns the token of the page after the entry last of a list.
func formatToken[K any](list string, last K) string {
	text, err := json.Marshal(token[K]{list, last})
	if err != nil {
		panic("admin: a page token does not marshal: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// parseToken returns the entry that a page begins after; nil for the first page.
func parseToken[K any](list, text string) (*K, error) {
	if text == "" {
		return nil, nil
	}
	bad := invalid.Errorf(invalid.Argument, "page_token", "must be empty or the next_page_token of an answer to the same request")
	if len(text) > maxToken {
		return nil, bad
	}
	plain, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, bad
	}
	var t token[K]
	// Accept only tokens that formatToken would produce.
	if json.Unmarshal(plain, &t) != nil || t.List != list || formatToken(list, t.Last) != text {
		return nil, bad
	}
	return &t.Last, nil
}

// A listRequest asks for a page of resources.
type listRequest interface {
	GetPageSize() int32
	GetPageToken() string
	GetLabelSelector() string
}

// pageOf returns the requested page of resources, converted by show, and the token of
// the next page, or "" if there is no next page. A token names the last resource of
// its page, so that a resource that is added or deleted between two calls neither
// repeats nor skips another. Resources for which show returns false are left out.
func pageOf[M proto.Message](all []store.Resource, list string, req listRequest, show func(store.Resource) (M, bool)) ([]M, string, error) {
	selector, err := parseSelector("label_selector", req.GetLabelSelector())
	if err != nil {
		return nil, "", err
	}
	list += "?" + req.GetLabelSelector()
	last, err := parseToken[string](list, req.GetPageToken())
	if err != nil {
		return nil, "", err
	}
	if last != nil {
		all = all[sort.Search(len(all), func(i int) bool { return all[i].GetName() > *last }):]
	}
	p, out, shown := newPage(req.GetPageSize()), []M(nil), ""
	for _, r := range all {
		if !selector.Matches(r.GetLabels()) {
			continue
		}
		m, ok := show(r)
		if !ok {
			continue
		}
		if !p.takes(m) {
			return out, formatToken(list, shown), nil
		}
		out, shown = append(out, m), r.GetName()
	}
	return out, "", nil
}

func parseSelector(p invalid.Path, text string) (store.Selector, error) {
	s, err := store.ParseSelector(text)
	if err != nil {
		return s, invalid.Errorf(invalid.Argument, p, "%v", err)
	}
	return s, nil
}

// A configKey orders the resources of all kinds.
type configKey struct {
	Instance string
	Revision int64
	Place    int // the index of the resource within the revision
}

// configPage returns a page of all resources, and the token of the next page.
func (s adminService) configPage(req *adminv1.GetConfigRequest) (*adminv1.GetConfigResponse, error) {
	const list = "config"
	last, err := parseToken[configKey](list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	state := s.gateway.State()
	at := configKey{Instance: s.gateway.InstanceID(), Revision: state.Revision()}
	if last != nil {
		if last.Instance != at.Instance || last.Revision != at.Revision {
			return nil, invalid.Errorf(invalid.Conflict, "page_token", "is of revision %d, but the live revision is %d: begin again without a page_token, or use WatchConfig", last.Revision, at.Revision)
		}
		at = *last
		at.Place = max(0, at.Place) // no page has a token with less
	}
	out := &adminv1.GetConfigResponse{Revision: at.Revision, InstanceId: at.Instance}
	p := newPage(req.GetPageSize())
	// Not All: a copy of all resources for each page would make the time of all pages
	// grow with the square of their number.
	for r := range state.From(at.Place) {
		m := store.Wrap(s.gateway.Present(r))
		if !p.takes(m) {
			out.NextPageToken = formatToken(list, at)
			break
		}
		out.Resources = append(out.Resources, m)
		at.Place++
	}
	return out, nil
}
