package l7

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

func mustRewrite(t testing.TB, w *route.Rewrite, err error) *route.Rewrite {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// rewritten returns a copy of a that rewrites the path with w.
func rewritten(a *Action, name string, w *route.Rewrite) *Action {
	forward := *a.Forward
	forward.Rewrite = w
	return &Action{Route: name, Forward: &forward}
}

// The gateway matches, rewrites and forwards the same path for every spelling, so
// that the upstream never reads the path differently from the router. ("": rejected.)
func TestRouteAndUpstreamAgreeOnThePath(t *testing.T) {
	w := newTestbed(t)
	back := to(w.back(backs.Auto, w.server(echo, "h2", "http/1.1")))
	prefix := func(p string) route.Path { return route.Path{Kind: route.PathPrefix, Value: p} }
	shorter, err := route.RewritePrefix("/api/", "/")
	mustRewrite(t, shorter, err)
	longer, err := route.RewritePrefix("/v2", "/internal/v2")
	mustRewrite(t, longer, err)
	regex, err := route.RewriteRegex("^/users/([^/]+)", "/people/$1")
	mustRewrite(t, regex, err)
	hostile, err := route.RewriteRegex("-", "/")
	mustRewrite(t, hostile, err)
	whole, err := route.RewritePath("/index.html")
	mustRewrite(t, whole, err)
	table := &Table{Routes: w.routes(
		route.Rule[*Action]{Name: "admin", Path: prefix("/admin"), Value: &Action{Respond: &Respond{Code: 403}}},
		route.Rule[*Action]{Name: "api", Path: prefix("/api/"), Value: rewritten(back, "api", shorter)},
		route.Rule[*Action]{Name: "v2", Path: prefix("/v2"), Value: rewritten(back, "v2", longer)},
		route.Rule[*Action]{Name: "users", Path: prefix("/users"), Value: rewritten(back, "users", regex)},
		route.Rule[*Action]{Name: "parts", Path: prefix("/parts"), Value: rewritten(back, "parts", hostile)},
		route.Rule[*Action]{Name: "page", Path: prefix("/page"), Value: rewritten(back, "page", whole)},
	), Default: back}
	_, plain := w.gateway(fixed(table))
	secure := *table
	secure.TLS = w.listenerTLS("h2", "http/1.1")
	_, address := w.gateway(fixed(&secure))
	for given, want := range map[string]string{
		"/api/x?y=/admin":      "/x?y=/admin",
		"/api/":                "/",
		"/api":                 "/api", // the default route's path
		"/v2":                  "/internal/v2",
		"/v2/":                 "/internal/v2/",
		"/v2/x":                "/internal/v2/x",
		"/v2x":                 "/v2x",
		"/users/%61nna/x":      "/people/anna/x",
		"/users":               "/users",
		"/page/anything?q":     "/index.html?q",
		"/parts/a-b--c":        "/parts/a/b/c",
		"/parts/..-admin":      "/admin", // normalized from "/parts/../admin", the result of the expression
		"/parts/a-%2e%2e-b":    "/parts/b",
		"/parts/-..-..-admin":  "",
		"/parts/..;-x":         "",
		"/parts/.%2f.-x":       "",
		"/parts/a%2f..-x":      "",
		"/parts/..%2Fadmin":    "",
		"/api/%2e%2e/admin":    "403",
		"/api/../admin":        "403",
		"/api//../admin":       "403",
		"//admin":              "403",
		"/./admin/":            "403",
		"/%61dmin":             "403",
		"/api/..%2fadmin":      "",
		"/api/..%2Fadmin":      "",
		"/api/..;/admin":       "",
		"/api/..;x=y/admin":    "",
		"/api/..\\admin":       "",
		"/api/%5c..%5cadmin":   "",
		"/api/%2e%2e%2fadmin":  "",
		"/api/%00":             "",
		"/api/%2e":             "/",
		"/api//admin":          "/admin", // allowed: the result is not matched again
		"/api/;/x":             "/;/x",
		"/api/%252e%252e/x":    "/%252e%252e/x",
		"/api/a%2fb":           "/a%2Fb",
		"/api/%2F%2Fevil.test": "/%2F%2Fevil.test",
		"/../api/x":            "",
	} {
		c := w.dial(plain)
		c.send("GET "+given+" HTTP/1.1", "Host: a")
		res, body := c.answer(t, "GET")
		c.Close()
		check := func(what string, code int, body string) {
			t.Helper()
			switch {
			case want == "" || want == "403":
				if status := map[string]int{"": 400, "403": 403}[want]; code != status {
					t.Errorf("%s: %s: %d %q, want %d", what, given, code, body, status)
				}
			case code != 200 || !strings.Contains(body, " "+want+" by "):
				t.Errorf("%s: %s: %d %q, want the path %q", what, given, code, body, want)
			}
		}
		check("HTTP/1.1", res.StatusCode, body)
		switch code := ask(t, w, address, ":method: GET", ":scheme: https", ":authority: localhost", ":path: "+given); {
		case want == "" && code != "400" && code != "", want == "403" && code != "403", want != "" && want != "403" && code != "200":
			t.Errorf("HTTP/2: %s: %s, want %q", given, code, want)
		}
		// Resolve returns the same path.
		r := table.Resolve(Question{Method: "GET", Host: "a", Target: given})
		path, _, _ := strings.Cut(want, "?")
		switch {
		case want == "" && (r.Code != 400 || r.Err == nil || r.Action != nil || r.UpstreamPath != ""),
			want == "403" && (r.Action == nil || r.Action.Respond == nil || r.UpstreamPath != ""),
			want != "" && want != "403" && r.UpstreamPath != path:
			t.Errorf("%s: resolved to %+v, want the path %q", given, r, path)
		}
	}
	// OPTIONS * concerns the whole server, so the request has no path.
	c := w.dial(plain)
	c.send("OPTIONS * HTTP/1.1", "Host: a")
	if res, body := c.answer(t, "OPTIONS"); res.StatusCode != 200 || !strings.Contains(body, " * by ") {
		t.Errorf("OPTIONS *: %d %q", res.StatusCode, body)
	}
}

// The listener's limit of header fields applies in every version of HTTP.
func TestFieldsOfAHeaderAreLimited(t *testing.T) {
	w := newTestbed(t)
	for _, c := range []struct{ limit, most int }{{0, 1000}, {20, 20}, {1500, 1500}} {
		respond := &Action{Respond: &Respond{}}
		_, plain := w.gateway(fixed(&Table{MaxHeaderFields: c.limit, MaxHeaderBytes: 1 << 20, Default: respond}))
		_, secure := w.gateway(fixed(&Table{MaxHeaderFields: c.limit, MaxHeaderBytes: 1 << 20, Default: respond, TLS: w.listenerTLS("h2", "http/1.1")}))
		for more, want := range map[int]string{0: "200", 1: "431"} {
			lines := []string{"GET / HTTP/1.1", "Host: localhost"}
			header := []string{":method: GET", ":scheme: https", ":path: /", ":authority: localhost"}
			for i := range c.most - 1 + more { // Host counts as a field
				lines, header = append(lines, fmt.Sprintf("a%d: b", i)), append(header, fmt.Sprintf("a%d: b", i))
			}
			conn := w.dial(plain)
			conn.send(lines...)
			res, err := http.ReadResponse(conn.r, nil)
			if err != nil || fmt.Sprint(res.StatusCode) != want {
				t.Errorf("%d fields where %d are allowed: %v, %v", c.most+more, c.most, res, err)
			}
			if got := ask(t, w, secure, header...); got != want {
				t.Errorf("HTTP/2: %d fields where %d are allowed: %s", c.most+more, c.most, got)
			}
		}
	}
}
