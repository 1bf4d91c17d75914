package gateway

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// When an upstream or listener is replaced or removed, its counts stay in the
// metrics, even if no scrape read them before. Each count appears once.
func TestCountersContinueAcrossRevisions(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(up.Close)
	g := start(t, "")
	plain := func(weight int32) *adminv1.Upstream {
		return &adminv1.Upstream{
			Name: "up", Endpoints: []*adminv1.Endpoint{{Address: strings.TrimPrefix(up.URL, "http://"), Weight: &weight}},
			Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}},
		}
	}
	web := httpListener("web", "127.0.0.1:0")
	web.Upstream = "up"
	g.put(plain(1), web)
	ask := func() {
		t.Helper()
		if code, _ := get(t, "http://"+g.address("web")); code != http.StatusOK {
			t.Fatal(code)
		}
	}
	metrics := func() string {
		_, text := get(t, "http://"+g.OpsAddress()+"/metrics")
		return text
	}
	wait := func(n string) {
		t.Helper()
		requests := `drawbridge_upstream_requests{endpoint="` + strings.TrimPrefix(up.URL, "http://") + `",upstream="up"} ` + n + "\n"
		eventually(t, "the metrics have "+requests, func() bool { return strings.Contains(metrics(), requests) })
	}
	ask()
	g.put(plain(2)) // replaced before the first scrape
	wait("1")
	for weight := range int32(5) {
		ask()
		g.put(plain(3 + weight))
	}
	wait("6")
	ask()
	g.apply(store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_LISTENER, Name: "web"}, {Kind: adminv1.Kind_KIND_UPSTREAM, Name: "up"}}})
	wait("7")
	codes := `drawbridge_bridge_http_requests{code="200",listener="web"} 7` + "\n"
	eventually(t, "the metrics have "+codes, func() bool { return strings.Contains(metrics(), codes) })
	for range 3 {
		if text := metrics(); !strings.Contains(text, codes) {
			t.Error("a count changed without any traffic")
		}
	}
}
