package l7

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// Resolve reports the status that a server sends for the same request.
func TestResolveReportsTheOutcomeOfARequest(t *testing.T) {
	w := newTestbed(t)
	respond := func(code int) *Action { return &Action{Respond: &Respond{Code: code}} }
	tenant := "a"
	routes := w.routes(
		route.Rule[*Action]{Name: "host", Hosts: []string{"a.example"}, Value: respond(201)},
		route.Rule[*Action]{Name: "path", Path: route.Path{Kind: route.PathPrefix, Value: "/v2"}, Value: respond(202)},
		route.Rule[*Action]{Name: "method", Methods: []string{"PUT"}, Value: respond(203)},
		route.Rule[*Action]{Name: "header", Headers: []route.Header{{Name: "X-Tenant", Exact: &tenant}}, Value: respond(206)},
		route.Rule[*Action]{Name: "empty", Path: route.Path{Kind: route.PathExact, Value: "/empty"}, Value: &Action{}},
	)
	table := &Table{Routes: routes}
	_, addr := w.gateway(fixed(table))
	for _, c := range []struct {
		q    Question
		code int
		host string
		path string
	}{
		{Question{Method: "GET", Host: "A.Example.:80", Target: "/"}, 201, "a.example", "/"},
		{Question{Method: "GET", Host: "b.example", Target: "/x/../v2/%61?q=1"}, 202, "b.example", "/v2/a"},
		{Question{Method: "PUT", Host: "b.example", Target: "/", Header: http.Header{"Content-Length": {"0"}}}, 203, "b.example", "/"},
		{Question{Method: "GET", Host: "b.example", Target: "/", Header: http.Header{"X-Tenant": {"a"}}}, 206, "b.example", "/"},
		{Question{Method: "GET", Host: "b.example", Target: "/", Header: http.Header{"X-Tenant": {"a"}, "Connection": {"x-tenant"}}}, 404, "b.example", "/"},
		{Question{Method: "GET", Host: "b.example", Target: "/empty"}, 404, "b.example", "/empty"},
		{Question{Method: "GET", Host: "b.example", Target: "/%2e%2e/%00"}, 400, "", ""},
		{Question{Method: "GET", Host: "b_!", Target: "/"}, 400, "", ""},
		{Question{Method: "CONNECT", Host: "b.example:443", Target: "b.example:443"}, 405, "", ""},
	} {
		t.Run(fmt.Sprintf("%s %s%s", c.q.Method, c.q.Host, c.q.Target), func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\n", c.q.Method, c.q.Target, c.q.Host)
			http.Header(c.q.Header).Write(conn)
			fmt.Fprint(conn, "\r\n")
			var code int
			if _, err := fmt.Fscanf(conn, "HTTP/1.1 %d", &code); err != nil {
				t.Fatal(err)
			}
			r := table.Resolve(c.q)
			said := r.Code
			if r.Action != nil {
				said = r.Action.Respond.Code
			}
			if code != c.code || said != c.code || r.Host != c.host || r.Path != c.path || (r.Err != nil) != (c.code == 400 || c.code == 405) {
				t.Errorf("served with %d, want %d; resolved as %+v", code, c.code, r)
			}
		})
	}
	if r := (&Table{Default: respond(200)}).Resolve(Question{Method: "GET", Host: "x", Target: "/"}); r.Action == nil || r.Code != 0 {
		t.Errorf("%+v", r)
	}
}
