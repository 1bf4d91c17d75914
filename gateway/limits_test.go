package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The status and the metrics count retries, and refusals by each limit, under
// the names of the configuration fields.
func TestLimitsAndRetriesAreCounted(t *testing.T) {
	var n atomic.Int32
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 1 || r.URL.Path == "/fails" {
			http.Error(w, "busy", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(up.Close)
	plain := func(name string) *adminv1.Upstream {
		return plainUpstream(name, strings.TrimPrefix(up.URL, "http://"))
	}
	none := int32(0)
	strict := plain("strict")
	strict.Limits = &adminv1.UpstreamLimits{RetryBudget: &adminv1.RetryBudget{Percent: &none, MinRetries: &none}}
	hourly := func(n int32) *adminv1.Rate { return &adminv1.Rate{Count: n, Period: durationpb.New(time.Hour)} }
	web, raw := httpListener("web", "127.0.0.1:0"), tcpListener("raw", "127.0.0.1:0")
	web.Upstream, raw.Upstream = "up", "up"
	web.Limits = &adminv1.ListenerLimits{RatePerClient: hourly(4)}
	raw.Limits = &adminv1.ListenerLimits{Rate: hourly(1)}
	route := func(path, upstream string) *adminv1.Route {
		return &adminv1.Route{Name: upstream, Listeners: []string{"web"}, Match: &adminv1.RouteMatch{Path: &adminv1.PathMatch{Kind: &adminv1.PathMatch_Prefix{Prefix: path}}},
			Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{Upstreams: []*adminv1.WeightedUpstream{{Name: upstream}},
				Retry: &adminv1.Retry{Codes: []int32{503}, Backoff: durationpb.New(1)}}}}
	}
	g := start(t, "")
	g.put(plain("up"), strict, web, raw, route("/again", "up"), route("/fails", "strict"))

	url := "http://" + g.address("web")
	for range 2 {
		for path, want := range map[string]int{"/again": 200, "/fails": 503} {
			n.Store(0)
			if code, _ := get(t, url+path); code != want {
				t.Errorf("%s: %d, want %d", path, code, want)
			}
		}
	}
	for range 3 {
		if code, body := get(t, url+"/again"); code != 429 || body != "too many requests\n" {
			t.Errorf("a request above the limit: %d %q", code, body)
		}
	}
	dial(t, g.address("raw")).Close()
	if late, err := net.Dial("tcp", g.address("raw")); err == nil { // the gateway may reset the connection before Dial returns
		late.SetDeadline(time.Now().Add(deadline))
		if rest, _ := io.ReadAll(late); len(rest) > 0 {
			t.Errorf("a connection above the limit got %q", rest)
		}
		late.Close()
	}

	for _, u := range g.UpstreamStatuses() {
		if want := map[string]string{"up": "2 0", "strict": "0 2"}[u.GetName()]; fmt.Sprint(u.GetRetries(), u.GetRetriesRefused()) != want {
			t.Errorf("%s: %d retries, %d refused, want %s", u.GetName(), u.GetRetries(), u.GetRetriesRefused(), want)
		}
	}
	text := ""
	metrics := func() string {
		_, text = get(t, "http://"+g.OpsAddress()+"/metrics")
		return text
	}
	for _, want := range []string{
		`drawbridge_bridge_limited{limit="rate_per_client",listener="web"} 3`,
		`drawbridge_bridge_limited{limit="rate",listener="web"} 0`,
		`drawbridge_bridge_limited{limit="requests",listener="web"} 0`,
		`drawbridge_bridge_limited{limit="rate",listener="raw"} 1`,
		`drawbridge_bridge_conn_rejected{listener="raw"} 1`,
		`drawbridge_bridge_http_requests{code="429",listener="web"} 3`,
		`drawbridge_upstream_retries{result="made",upstream="up"} 2`,
		`drawbridge_upstream_retries{result="refused",upstream="strict"} 2`,
	} {
		eventually(t, "the metrics have "+want, func() bool { return strings.Contains(metrics(), want+"\n") })
	}
	if strings.Contains(text, `drawbridge_bridge_limited{limit="requests",listener="raw"}`) {
		t.Error("a TCP listener has a count of requests")
	}
}
