package l7

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// The values of header rules reach the upstream and the client with the facts of
// each request filled in.
func TestVariablesThroughTheGateway(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.Auto, w.server(seen, "h2", "http/1.1"))
	a := to(back)
	a.Route = "r"
	a.RequestHeaders = policy.HeaderRules{Set: values("X-Who: ${client_address} ${method} ${host} ${path} ${route} ${upstream} ${listener} [${endpoint}]")}
	a.ResponseHeaders = policy.HeaderRules{Set: values("X-Served: ${upstream} at ${endpoint} for ${path}")}
	fixedAnswer := &Action{Route: "fixed", Respond: &Respond{}, ResponseHeaders: policy.HeaderRules{Add: values("X-Served: ${route}${endpoint}${upstream} ${host}")}}
	_, address := w.gateway(fixed(&Table{Routes: w.routes(
		route.Rule[*Action]{Name: "r", Value: a},
		route.Rule[*Action]{Name: "fixed", Path: route.Path{Kind: route.PathExact, Value: "/fixed"}, Value: fixedAnswer},
	)}))
	c := w.dial(address)
	c.send("PUT /a//%61?q HTTP/1.1", "Host: A.example:80", "Content-Length: 0", "x_who: admin")
	res, body := c.answer(t, "PUT")
	endpoint := back.Upstream().Endpoints()[0].Address()
	if want := "X-Who: 127.0.0.1 PUT a.example /a/a r up front []"; !strings.Contains(body, want) || strings.Contains(body, "admin") {
		t.Errorf("%q, want %q", body, want)
	}
	if got, want := res.Header.Get("X-Served"), fmt.Sprintf("up at %s for /a/a", endpoint); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	c.send("GET /fixed HTTP/1.1", "Host: a.example")
	if res, _ := c.answer(t, "GET"); res.StatusCode != http.StatusOK || res.Header.Get("X-Served") != "fixed a.example" {
		t.Errorf("%v", res)
	}
}
