package admin

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Every list and watch carries 10,000 resources of each kind in messages that are far
// smaller than the 4 MiB that clients accept, and each resource once.
func TestTenThousandResourcesOfEachKindAreRead(t *testing.T) {
	const n = 10_000
	r := start(t)
	labels := map[string]string{"owner": strings.Repeat("x", 200)}
	var all []store.Resource
	for i := range n {
		name := fmt.Sprintf("r-%05d", i)
		all = append(all,
			&adminv1.Listener{Name: name, Labels: labels, Address: "127.0.0.1:0"},
			&adminv1.Route{Name: name, Labels: labels, Listeners: []string{name}},
			&adminv1.Upstream{Name: name, Labels: labels, Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}},
			&adminv1.Certificate{Name: name, Labels: labels, Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: strings.Repeat("x", 1000)}}},
			&adminv1.TrustBundle{Name: name, Labels: labels, Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat("x", 1000)}})
	}
	state, err := store.Restore(1, all)
	if err != nil {
		t.Fatal(err)
	}
	r.gateway.mu.Lock()
	r.gateway.state = state
	r.gateway.mu.Unlock()

	// once checks that names lists every resource exactly once and in order.
	once := func(what string, names []string) {
		t.Helper()
		if len(names) != n {
			t.Errorf("%s: %d entries, want %d", what, len(names), n)
			return
		}
		for i, name := range names {
			if name != fmt.Sprintf("r-%05d", i) {
				t.Errorf("%s: entry %d is %s", what, i, name)
				return
			}
		}
	}
	small := func(what string, m proto.Message, most int) {
		t.Helper()
		if size := proto.Size(m); size > most {
			t.Errorf("%s: a message has %d bytes, more than %d", what, size, most)
		}
	}
	type page struct {
		message proto.Message
		names   []string
		next    string
	}
	const mostOfPage = maxPageBytes + 64<<10
	for what, read := range map[string]func(token string) (page, error){
		"ListListeners": func(token string) (page, error) {
			m, err := r.admin.ListListeners(t.Context(), &adminv1.ListListenersRequest{PageToken: token})
			return page{m, namesOf(m.GetListeners()), m.GetNextPageToken()}, err
		},
		"ListRoutes": func(token string) (page, error) {
			m, err := r.admin.ListRoutes(t.Context(), &adminv1.ListRoutesRequest{PageToken: token})
			return page{m, namesOf(m.GetRoutes()), m.GetNextPageToken()}, err
		},
		"ListUpstreams": func(token string) (page, error) {
			m, err := r.admin.ListUpstreams(t.Context(), &adminv1.ListUpstreamsRequest{PageToken: token})
			return page{m, namesOf(m.GetUpstreams()), m.GetNextPageToken()}, err
		},
		"ListCertificates": func(token string) (page, error) {
			m, err := r.admin.ListCertificates(t.Context(), &adminv1.ListCertificatesRequest{PageToken: token})
			return page{m, namesOf(m.GetCertificates()), m.GetNextPageToken()}, err
		},
		"ListTrustBundles": func(token string) (page, error) {
			m, err := r.admin.ListTrustBundles(t.Context(), &adminv1.ListTrustBundlesRequest{PageToken: token})
			return page{m, namesOf(m.GetTrustBundles()), m.GetNextPageToken()}, err
		},
		"StatusService.ListUpstreams": func(token string) (page, error) {
			m, err := r.status.ListUpstreams(t.Context(), &adminv1.ListUpstreamStatusesRequest{PageToken: token})
			return page{m, namesOf(m.GetUpstreams()), m.GetNextPageToken()}, err
		},
		"StatusService.ListCertificates": func(token string) (page, error) {
			m, err := r.status.ListCertificates(t.Context(), &adminv1.ListCertificatesInUseRequest{PageToken: token})
			return page{m, namesOf(m.GetCertificates()), m.GetNextPageToken()}, err
		},
		"GetStatus": func(token string) (page, error) {
			m, err := r.status.GetStatus(t.Context(), &adminv1.GetStatusRequest{PageToken: token})
			listed := m.GetListeners()
			if token == "" && len(listed) > 0 {
				listed = listed[1:] // the first listener is listed twice, because it also drains
			}
			return page{m, namesOf(listed), m.GetNextPageToken()}, err
		},
	} {
		var names []string
		for token, pages := "", 0; ; pages++ {
			p, err := read(token)
			if err != nil || pages > n {
				t.Fatalf("%s: page %d: %v", what, pages, err)
			}
			small(what, p.message, mostOfPage)
			if names = append(names, p.names...); p.next == "" {
				break
			}
			token = p.next
		}
		once(what, names)
	}

	// everything checks that resources holds every resource of every kind.
	everything := func(what string, resources []*adminv1.Resource) {
		t.Helper()
		names := map[adminv1.Kind][]string{}
		for _, m := range resources {
			_, one := resourceIn(m)
			names[store.KindOf(one)] = append(names[store.KindOf(one)], one.GetName())
		}
		for _, k := range store.Kinds() {
			once(what+" "+k.String(), names[k])
		}
	}
	var read []*adminv1.Resource
	for token := ""; ; {
		m, err := r.admin.GetConfig(t.Context(), &adminv1.GetConfigRequest{PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		small("GetConfig", m, mostOfPage)
		read = append(read, m.GetResources()...)
		if token = m.GetNextPageToken(); token == "" {
			break
		}
	}
	everything("GetConfig", read)

	read = nil
	watch, err := r.admin.WatchConfig(t.Context(), &adminv1.WatchConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for synced := false; !synced; {
		m, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		small("WatchConfig", m, 2*chunkBytes)
		read, synced = append(read, m.GetResources()...), m.GetSynced()
	}
	everything("WatchConfig", read)
}

func namesOf[M interface{ GetName() string }](all []M) []string {
	out := make([]string, len(all))
	for i, m := range all {
		out[i] = m.GetName()
	}
	return out
}
