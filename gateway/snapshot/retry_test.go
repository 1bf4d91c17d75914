package snapshot

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// at returns the paths of faults, in order.
func at(faults []invalid.Fault) []string {
	var all []string
	for _, f := range faults {
		all = append(all, string(f.Field))
	}
	slices.Sort(all)
	return all
}

func retried(r *adminv1.Retry) *adminv1.Route {
	route := forward("r", nil, "web", "u")
	route.GetForward().Retry = r
	return route
}

func TestRetriesBecomeLive(t *testing.T) {
	for name, c := range map[string]struct {
		in   *adminv1.Retry
		want *exchange.Retry
	}{
		"no retry": {nil, nil},
		"defaults": {&adminv1.Retry{}, &exchange.Retry{ConnectFailure: true, Reset: true, RefusedStream: true}},
		"every field": {
			&adminv1.Retry{Attempts: new(int32(10)), On: []adminv1.RetryCondition{adminv1.RetryCondition_RETRY_CONDITION_RESET}, Codes: []int32{200, 429, 599},
				PerTryTimeout: durationpb.New(time.Second), Methods: []string{"POST", "M-SEARCH"}, MaxBodyBytes: new(int32(1 << 20)), Backoff: durationpb.New(10 * time.Second)},
			&exchange.Retry{Attempts: 10, Reset: true, Codes: []int{200, 429, 599}, PerTry: time.Second, Methods: []string{"POST", "M-SEARCH"}, MaxBody: 1 << 20, Backoff: 10 * time.Second},
		},
		"codes in addition to the defaults": {&adminv1.Retry{Codes: []int32{503}}, &exchange.Retry{ConnectFailure: true, Reset: true, RefusedStream: true, Codes: []int{503}}},
	} {
		w := newTestbed(t)
		w.put(tlsUpstream("u", nil), listener("web", "127.0.0.1:1", httpP, ""), retried(c.in))
		action, _ := w.snap.HTTP("web").Routes.Match(route.Request{Host: "a", Path: "/", Method: "GET"})
		if got := action.Forward.Retry; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestFaultsOfRetries(t *testing.T) {
	w := newTestbed(t)
	w.put(tlsUpstream("u", nil), listener("web", "127.0.0.1:1", httpP, ""), listener("raw", "127.0.0.1:2", tcp, ""))
	const reset = adminv1.RetryCondition_RETRY_CONDITION_RESET
	faults := w.refused(retried(&adminv1.Retry{
		Attempts: new(int32(11)), On: []adminv1.RetryCondition{reset, 0, reset, 99}, Codes: []int32{199, 503, 503, 600}, PerTryTimeout: durationpb.New(-1),
		Methods: []string{"", "a b", "CONNECT", "POST", "POST"}, MaxBodyBytes: new(int32(1<<20 + 1)), Backoff: durationpb.New(11 * time.Second),
	}))
	want := []string{"r0.forward.retry.attempts", "r0.forward.retry.backoff", "r0.forward.retry.codes[0]", "r0.forward.retry.codes[2]", "r0.forward.retry.codes[3]",
		"r0.forward.retry.max_body_bytes", "r0.forward.retry.methods[0]", "r0.forward.retry.methods[1]", "r0.forward.retry.methods[2]", "r0.forward.retry.methods[4]",
		"r0.forward.retry.on[1]", "r0.forward.retry.on[2]", "r0.forward.retry.on[3]", "r0.forward.retry.per_try_timeout"}
	if got := at(faults); !slices.Equal(got, want) {
		t.Errorf("faults at\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}

	timed := retried(&adminv1.Retry{PerTryTimeout: durationpb.New(time.Second)})
	timed.GetForward().Timeout = durationpb.New(time.Second)
	if got := at(w.refused(timed)); !slices.Equal(got, []string{"r0.forward.retry.per_try_timeout"}) {
		t.Errorf("a try may take as long as all tries together: %v", got)
	}
	timed.GetForward().Timeout = durationpb.New(time.Second + 1)
	w.put(timed)

	bytes := retried(&adminv1.Retry{
		Attempts: new(int32(11)), On: []adminv1.RetryCondition{reset}, Codes: []int32{503}, PerTryTimeout: durationpb.New(-1),
		Methods: []string{"POST"}, MaxBodyBytes: new(int32(1)), Backoff: durationpb.New(time.Second),
	})
	bytes.Listeners = []string{"raw"}
	if got := at(w.refused(bytes)); !slices.Equal(got, []string{
		"r0.forward.retry.attempts", "r0.forward.retry.backoff", "r0.forward.retry.codes", "r0.forward.retry.max_body_bytes",
		"r0.forward.retry.methods", "r0.forward.retry.on", "r0.forward.retry.per_try_timeout",
	}) {
		t.Errorf("on a TCP listener: %v", got)
	}
}

func TestRetriesOfTCPRoutes(t *testing.T) {
	for _, c := range []struct {
		in   *adminv1.Retry
		want upstream.Attempts
	}{
		{nil, upstream.Attempts{}},
		{&adminv1.Retry{}, upstream.Attempts{}},
		{&adminv1.Retry{Attempts: new(int32(3)), PerTryTimeout: durationpb.New(time.Second)}, upstream.Attempts{MaxEndpoints: 3, PerEndpoint: time.Second}},
	} {
		w := newTestbed(t)
		r := retried(c.in)
		r.Listeners = []string{"raw"}
		w.put(tlsUpstream("u", nil), listener("raw", "127.0.0.1:2", tcp, ""), r)
		target, ok := w.snap.TCP("raw").Routes.Match(route.Request{})
		if !ok || target.Attempts != c.want {
			t.Errorf("%v: %+v", c.in, target)
		}
	}
}

func TestTheBudgetOfRetries(t *testing.T) {
	for name, c := range map[string]struct {
		in       *adminv1.RetryBudget
		underWay int
		want     int
	}{
		"default":                          {nil, 100, 20},
		"the default with few requests":    {nil, 1, 3},
		"an empty budget has the defaults": {&adminv1.RetryBudget{}, 100, 20},
		"a budget of zero":                 {&adminv1.RetryBudget{Percent: proto.Int32(0), MinRetries: proto.Int32(0)}, 100, 0},
		"only min_retries":                 {&adminv1.RetryBudget{MinRetries: proto.Int32(7)}, 10, 7},
		"percent":                          {&adminv1.RetryBudget{Percent: proto.Int32(50)}, 10, 5},
	} {
		w := newTestbed(t)
		u := tlsUpstream("u", nil)
		u.Limits = &adminv1.UpstreamLimits{RetryBudget: c.in}
		w.put(u)
		live := w.snap.upstreams.Get("u").live
		retries := live.Retries()
		for range c.underWay {
			var turn upstream.Turn
			turn.Begin(live, upstream.Key{})
			if _, err := turn.Next(nil); err != nil {
				t.Fatal(err)
			}
			defer turn.End()
		}
		n := 0
		for retries.Take() {
			n++
		}
		if n != c.want {
			t.Errorf("%s: %d of %d, want %d", name, n, c.underWay, c.want)
		}
	}
	w, u := newTestbed(t), tlsUpstream("u", nil)
	u.Limits = &adminv1.UpstreamLimits{RetryBudget: &adminv1.RetryBudget{Percent: proto.Int32(101), MinRetries: proto.Int32(1_000_001)}}
	if got := at(w.refused(u)); !slices.Equal(got, []string{"r0.limits.retry_budget.min_retries", "r0.limits.retry_budget.percent"}) {
		t.Errorf("faults at %v", got)
	}
}

func TestLimitsBecomeLive(t *testing.T) {
	w := newTestbed(t)
	limits := &adminv1.ListenerLimits{Connections: 1, ConnectionsPerClient: 2, Requests: 3, RequestsPerClient: 4,
		Rate: &adminv1.Rate{Count: 5}, RatePerClient: &adminv1.Rate{Count: 6, Period: durationpb.New(time.Hour), Burst: new(int32(7))}}
	web := listener("web", "127.0.0.1:1", httpP, "u")
	web.Limits = limits
	web.Http = &adminv1.HttpOptions{MaxBodyBytes: 8, MaxRequestsPerConnection: 9, MaxConnectionAge: durationpb.New(10 * time.Second)}
	raw := listener("raw", "127.0.0.1:2", tcp, "u")
	raw.Limits = proto.Clone(limits).(*adminv1.ListenerLimits)
	raw.Limits.Requests, raw.Limits.RequestsPerClient = 0, 0
	w.put(tlsUpstream("u", nil), web, raw, listener("free", "127.0.0.1:3", httpP, "u"))

	all, each := limit.Rate{Count: 5, Period: time.Second}, limit.Rate{Count: 6, Period: time.Hour, Burst: 7}
	h := w.snap.HTTP("web")
	if h.MaxConnections != 1 || h.MaxPerClient != 2 || h.Limits != (limit.Limits{AtOnce: 3, AtOncePerClient: 4, Rate: all, RatePerClient: each}) ||
		h.MaxBody != 8 || h.MaxRequests != 9 || h.MaxAge != 10*time.Second {
		t.Errorf("HTTP: %+v", h)
	}
	if c := w.snap.TCP("raw"); c.MaxConnections != 1 || c.MaxPerClient != 2 || c.Rate != all || c.RatePerClient != each {
		t.Errorf("TCP: %+v", c)
	}
	if h := w.snap.HTTP("free"); h.Limits != (limit.Limits{}) || h.MaxBody != 0 || h.MaxRequests != 0 || h.MaxAge != 0 {
		t.Errorf("without limits: %+v", h)
	}
}

func TestFaultsOfLimits(t *testing.T) {
	w := newTestbed(t)
	web := listener("web", "127.0.0.1:1", httpP, "")
	web.Limits = &adminv1.ListenerLimits{Connections: 1_000_001, ConnectionsPerClient: 1_000_001, Requests: 1_000_001, RequestsPerClient: 1_000_001,
		Rate: &adminv1.Rate{}, RatePerClient: &adminv1.Rate{Count: 1_000_001, Period: durationpb.New(2 * time.Hour), Burst: new(int32(1_000_001))}}
	web.Http = &adminv1.HttpOptions{MaxBodyBytes: -1, MaxRequestsPerConnection: -1, MaxConnectionAge: durationpb.New(time.Millisecond)}
	raw := listener("raw", "127.0.0.1:2", tcp, "")
	raw.Limits = &adminv1.ListenerLimits{Requests: 1, RequestsPerClient: 1, Rate: &adminv1.Rate{Count: 1, Period: durationpb.New(time.Microsecond)}}
	want := []string{"r0.http.max_body_bytes", "r0.http.max_connection_age", "r0.http.max_requests_per_connection",
		"r0.limits.connections", "r0.limits.connections_per_client", "r0.limits.rate.count",
		"r0.limits.rate_per_client.burst", "r0.limits.rate_per_client.count", "r0.limits.rate_per_client.period", "r0.limits.requests", "r0.limits.requests_per_client",
		"r1.limits.rate.period", "r1.limits.requests", "r1.limits.requests_per_client"}
	if got := at(w.refused(web, raw)); !slices.Equal(got, want) {
		t.Errorf("faults at\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
