package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/livestate"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// withLiveState returns the resources of an upstream that ejects its first endpoint, and of
// a listener that admits four requests of a client.
func withLiveState(t *testing.T) (*adminv1.Upstream, *adminv1.Listener) {
	broken := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) }))
	t.Cleanup(broken.Close)
	works := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "works") }))
	t.Cleanup(works.Close)
	up := plainUpstream("up", broken.Listener.Addr().String())
	up.Endpoints = append(up.Endpoints, &adminv1.Endpoint{Address: works.Listener.Addr().String()})
	up.OutlierDetection = &adminv1.OutlierDetection{
		ConsecutiveFailures: proto.Int32(1), BaseEjection: durationpb.New(time.Hour), MaxEjection: durationpb.New(time.Hour),
	}
	web := httpListener("web", "127.0.0.1:0")
	web.Limits = &adminv1.ListenerLimits{RatePerClient: &adminv1.Rate{Count: 4, Period: durationpb.New(time.Hour)}}
	return up, web
}

// taken returns the live state of a gateway that has learned something about every
// resource.
func taken(t *testing.T, up *adminv1.Upstream, web *adminv1.Listener) []byte {
	t.Helper()
	g := start(t, "")
	g.put(up, web)
	for range 4 {
		get(t, "http://"+g.address("web"))
	}
	if e := g.endpoint("up", 0); e.GetAvailable() {
		t.Fatalf("%v", e)
	}
	state, err := livestate.Take(g.live.Load(), g.listeners)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// The state of another process is applied to the resources with the same settings, whatever
// fields either version adds.
func TestLiveStateIsAppliedToTheSameSettings(t *testing.T) {
	up, web := withLiveState(t)
	state := taken(t, up, web)
	labeled, changed, otherwise := proto.CloneOf(up), proto.CloneOf(up), proto.CloneOf(web)
	labeled.Labels = map[string]string{"team": "pay"}
	changed.OutlierDetection.ConsecutiveFailures = proto.Int32(2)
	otherwise.Protocol = adminv1.Protocol_PROTOCOL_TCP
	other := proto.CloneOf(up)
	other.Name = "other"
	for name, c := range map[string]struct {
		state     []byte
		resources []store.Resource
		dropped   []string
		err       string
	}{
		"the same":                     {state, []store.Resource{up, web}, nil, ""},
		"other labels":                 {state, []store.Resource{labeled, web}, nil, ""},
		"a newer version's fields":     {addFields(t, state), []store.Resource{up, web}, nil, ""},
		"another setting":              {state, []store.Resource{changed, web}, []string{"upstream up"}, ""},
		"another protocol":             {state, []store.Resource{up, otherwise}, []string{"listener web"}, ""},
		"no listener":                  {state, []store.Resource{up}, []string{"listener web"}, ""},
		"no such upstream":             {state, []store.Resource{other}, []string{"upstream up", "listener web"}, ""},
		"another format":               {[]byte(`{"format":2,"upstreams":7}`), []store.Resource{up, web}, nil, "the state has format 2, and this version reads format 1"},
		"no format":                    {[]byte(`{}`), []store.Resource{up, web}, nil, "format 0"},
		"an incomplete state":          {state[:len(state)/2], []store.Resource{up, web}, nil, "unexpected end"},
		"a field of another type":      {[]byte(`{"format":1,"upstreams":[{"name":1}]}`), []store.Resource{up, web}, nil, "cannot unmarshal"},
		"an upstream without identity": {regexp.MustCompile(`"identity":"[^"]{64}",`).ReplaceAll(state, nil), []store.Resource{up, web}, []string{"upstream up"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, "")
			g.put(c.resources...)
			adopted, err := livestate.Adopt(c.state, g.live.Load(), g.listeners)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("%v, want %q", err, c.err)
			}
			if !slices.Equal(adopted.Dropped, c.dropped) {
				t.Errorf("dropped %q, want %q", adopted.Dropped, c.dropped)
			}
			keeps := func(what string) bool { return c.err == "" && !slices.Contains(c.dropped, what) }
			if u, ok := g.live.Load().Upstream("up"); ok {
				if s := u.Live.Status()[0]; s.Available == keeps("upstream up") {
					t.Errorf("the endpoint is available: %t", s.Available)
				}
			}
			if l := g.live.Load().Listener("web"); l != nil && l.Protocol == web.GetProtocol() {
				code, _ := get(t, "http://"+g.address("web"))
				if limited := code == http.StatusTooManyRequests; limited != keeps("listener web") {
					t.Errorf("the fifth request got the status %d", code)
				}
			}
		})
	}
}

// addFields adds an unknown field to every object of the state.
func addFields(t *testing.T, state []byte) []byte {
	t.Helper()
	var root any
	if err := json.Unmarshal(state, &root); err != nil {
		t.Fatal(err)
	}
	var add func(any)
	add = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, inner := range v {
				add(inner)
			}
			v["added_later"] = map[string]any{"a": []int{1}}
		case []any:
			for _, inner := range v {
				add(inner)
			}
		}
	}
	add(root)
	out, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
