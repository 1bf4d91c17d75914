package l7

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// seen is an upstream handler that answers with the fields of the request.
var seen = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	var lines []string
	for name, values := range r.Header {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	slices.Sort(lines)
	fmt.Fprintf(w, "%s %s\n%s", r.Host, r.RequestURI, strings.Join(lines, "\n"))
})

func TestForgedAndHopByHopFieldsAreRemoved(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP1, w.server(seen)))
	c := w.dial(address)
	c.send("GET /a HTTP/1.1", "Host: Site.Example:80",
		"X-Forwarded-For: 6.6.6.6", "x_forwarded_for: 6.6.6.6", "X-Forwarded-Proto: https", "X_Forwarded_Host: evil", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6",
		"Connection: X-Forwarded-For, x-forwarded-host, Secret, backs.HTTP2-Settings, Upgrade", "Secret: 1", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ",
		"TE: trailers, gzip", "Proxy-Authorization: x", "Keep-Alive: 1", "Cookie: kept", "User-Agent: ")
	_, body := c.answer(t, "GET")
	_, port, _ := net.SplitHostPort(address)
	want := "site.example:80 /a\nConnection: TE\nCookie: kept\nTe: trailers\nUser-Agent: \nX-Forwarded-For: 127.0.0.1\nX-Forwarded-Host: site.example:80\nX-Forwarded-Port: " + port + "\nX-Forwarded-Proto: http"
	if body != want {
		t.Errorf("got %q\nwant %q", body, want)
	}
}

func TestResponsesLoseHopByHopFields(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for _, f := range []string{"Connection: Secret", "Secret: 1", "Keep-Alive: timeout=1", "Proxy-Authenticate: x", "Upgrade: h2c", "Kept: 1"} {
			name, value, _ := strings.Cut(f, ": ")
			rw.Header().Set(name, value)
		}
		rw.Header()["Content-Type"] = nil
		fmt.Fprint(rw, "<html>")
	}))))
	res, err := w.browser().Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, name := range []string{"Connection", "Secret", "Keep-Alive", "Proxy-Authenticate", "Upgrade"} {
		if v, ok := res.Header[name]; ok {
			t.Errorf("%s: %q", name, v)
		}
	}
	if _, ok := res.Header["Content-Type"]; ok {
		t.Errorf("a Content-Type was invented: %v", res.Header)
	}
	if res.Header.Get("Kept") != "1" {
		t.Errorf("%v", res.Header)
	}
}

// A 426 must name the protocols that it asks for. The gateway forwards these names
// to clients.
func TestRequiredUpgradeIsForwarded(t *testing.T) {
	for _, c := range []struct{ upgrade, version, want, connection string }{
		{"websocket", "1.1", "websocket", "Upgrade"},
		{"websocket", "1.0", "", ""},
		{"TLS/1.2, h2c, websocket", "1.1", "TLS/1.2, websocket", "Upgrade"},
		{"h2c", "1.1", "", ""},
		{"x/1, , a b, x/y/z", "1.1", "x/1", "Upgrade"},
		{"", "1.1", "", ""},
	} {
		w := newTestbed(t)
		_, address := w.plain(w.back(backs.HTTP1, w.raw(w.serverTLS(), func(conn net.Conn) {
			r := bufio.NewReader(conn)
			for {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				fmt.Fprintf(conn, "HTTP/1.1 426 Upgrade Required\r\nUpgrade: %s\r\nConnection: upgrade, secret\r\nSecret: 1\r\nContent-Length: 2\r\n\r\nno", c.upgrade)
			}
		})))
		client := w.dial(address)
		for range 2 { // the connection is kept
			client.send("GET / HTTP/"+c.version, "Host: a", "Connection: keep-alive")
			res, body := client.answer(t, "GET")
			connection := c.connection
			if c.version == "1.0" {
				connection = "keep-alive"
			}
			if h := res.Header; res.StatusCode != 426 || body != "no" || h.Get("Upgrade") != c.want || h.Get("Connection") != connection || h.Get("Secret") != "" {
				t.Errorf("%q: %+v %q", c.upgrade, res, body)
			}
		}
		s := w.dial2(address).Open()
		if err := s.Send(&message.Request{Method: "GET", Scheme: "http", Authority: "a.test", Target: "/"}, true); err != nil {
			t.Fatal(err)
		}
		var head message.Response
		if err := s.Receive(&head); err != nil || head.Status != 426 {
			t.Errorf("%q over HTTP/2: %+v %v", c.upgrade, head, err)
		}
		s.Done()
	}
}

func TestForwardedTargetIsTheMatchedTarget(t *testing.T) {
	w := newTestbed(t)
	_, address := w.gateway(fixed(&Table{Routes: w.routes(
		route.Rule[*Action]{Name: "public", Hosts: []string{"a.example"}, Path: route.Path{Kind: route.PathPrefix, Value: "/public"}, Value: to(w.back(backs.HTTP1, w.server(seen)))},
	)}))
	for target, want := range map[string]string{
		"/public/x":                                "/public/x",
		"/public":                                  "/public",
		"/publicx":                                 "404",
		"/%70ublic/%7Ex?a=%2e%2e":                  "/public/~x?a=%2e%2e",
		"/x/..//public/./a/":                       "/public/a/",
		"/public/a%2fb%5cc":                        "/public/a%2Fb%5Cc",
		"/public/../admin":                         "404",
		"/public/%2e%2e/admin":                     "404",
		"/public/..%2fadmin":                       "400",
		"/public/..;/admin":                        "400",
		"/public/..\\admin":                        "400",
		"/public/%00":                              "400",
		"/public/%0d%0aX:1":                        "400",
		"/../public":                               "400",
		"/public/%zz":                              "400",
		"/public?":                                 "/public?",
		"http://A.EXAMPLE./public/":                "/public/",
		"http://a.example/public/":                 "400", // differs from Host
		"http://b.example./public/":                "400",
		"ftp://a.example/public/":                  "400",
		"*":                                        "400",
		"/public/a;b=c?d;e=%zz&f#frag":             "400",
		"/public/a;b=c?d;e=%zz&f=a b":              "400",
		"/public/a;b=c?d;e=%zz&f":                  "/public/a;b=c?d;e=%zz&f",
		"/public/" + strings.Repeat("a/../", 1000): "/public/",
	} {
		c := w.dial(address)
		c.send("GET "+target+" HTTP/1.1", "Host: A.example.", "Connection: close")
		res, body := c.answer(t, "GET")
		got := fmt.Sprint(res.StatusCode)
		if res.StatusCode == 200 {
			got, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimPrefix(body, "a.example "), "a.example:80 "), "\n")
		}
		if got != want {
			t.Errorf("%.100q: %q, want %q", target, got, want)
		}
		c.Close()
	}
}

func TestUnsafeRequestsAreRefused(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP1, w.server(seen)))
	for _, c := range []struct {
		lines []string
		code  int
	}{
		{[]string{"CONNECT a:443 HTTP/1.1", "Host: a:443"}, 405},
		{[]string{"GET / HTTP/1.1"}, 400},
		{[]string{"GET / HTTP/1.0", "Host: "}, 400},
		{[]string{"GET / HTTP/1.1", "Host: "}, 400},
		{[]string{"GET / HTTP/1.1", "Host: a", "Host: b"}, 400},
		{[]string{"GET / HTTP/1.1", "Host: a,b"}, 400},
		{[]string{"GET / HTTP/1.1", "Host: user@a"}, 400},
		{[]string{"GET / HTTP/1.1", "Host: a/b"}, 400},
		{[]string{"OPTIONS * HTTP/1.1", "Host: a"}, 200},
		{[]string{"GET / HTTP/1.1", "Host: a", "X: " + strings.Repeat("a", 100000)}, 431},
		{[]string{"POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"}, 501},
	} {
		raw := w.dial(address)
		raw.send(c.lines...)
		if res, _ := raw.answer(t, "GET"); res.StatusCode != c.code {
			t.Errorf("%.80q: %d, want %d", c.lines, res.StatusCode, c.code)
		}
		raw.Close()
	}
}

func TestSlowHeadersAndIdleConnectionsAreClosed(t *testing.T) {
	withGrowingLimit(t, 50*time.Millisecond, func(limit time.Duration) bool {
		w := newTestbed(t)
		_, address := w.gateway(fixed(&Table{HeaderReadTimeout: limit, IdleTimeout: limit}))
		slow := w.dial(address)
		if _, err := fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: "); err != nil {
			return false // the connection was idle for too long
		}
		if _, err := io.Copy(io.Discard, slow); errors.Is(err, syscall.ECONNRESET) {
			return false // the header came after the end
		} else if err != nil {
			t.Errorf("slow header: %v", err)
		}
		idle := w.dial(address)
		idle.send("GET / HTTP/1.1", "Host: a")
		if idle.closedUnanswered() {
			return false
		}
		if res, _ := idle.answer(t, "GET"); res.StatusCode != 404 {
			t.Errorf("%d", res.StatusCode)
		}
		if n, err := io.Copy(io.Discard, idle.r); n != 0 || err != nil {
			t.Errorf("idle: %d, %v", n, err)
		}
		return true
	})
}

// If an upstream answers before the body was sent, its connection is not
// reused, because the upstream could mistake the body for a request.
func TestExpectContinue(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			http.Error(rw, "no", http.StatusForbidden)
			return
		}
		echo.ServeHTTP(rw, r)
	})))
	_, address := w.plain(back)
	for range 3 {
		for tries := 1; ; tries++ {
			begun, c := time.Now(), w.dial(address)
			c.send("POST /refuse HTTP/1.1", "Host: a", "Content-Length: 30", "Expect: 100-continue")
			res, body := c.answer(t, "POST")
			c.Close()
			if res.StatusCode == 100 && time.Since(begun) >= time.Second && tries < 10 {
				continue // a busy machine stalled for as long as the gateway waits for the upstream
			}
			if res.StatusCode != 403 || body != "no\n" {
				t.Errorf("%d %q", res.StatusCode, body)
			}
			break
		}
		c := w.dial(address)
		c.send("POST /take HTTP/1.1", "Host: a", "Content-Length: 5", "Expect: 100-continue")
		if line, _ := c.r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Errorf("%q", line)
		}
		_, _ = c.r.ReadString('\n')
		fmt.Fprint(c, "hello")
		if _, body := c.answer(t, "POST"); !strings.HasSuffix(body, "/take by gateway: hello") {
			t.Errorf("%q", body)
		}
		c.Close()
	}
}

// A client that withholds its body loses the connection once its request is answered.
func TestAWithheldBodyEndsTheConnectionAfterTheResponse(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Connection", "close")
		rw.WriteHeader(http.StatusForbidden)
	}))))
	c := w.dial(address)
	c.send("POST / HTTP/1.1", "Host: a", "Content-Length: 1000000")
	fmt.Fprint(c, "some")
	if res, _ := c.answer(t, "POST"); res.StatusCode != 403 {
		t.Errorf("%d", res.StatusCode)
	}
	if _, err := io.Copy(io.Discard, c.r); err != nil {
		t.Errorf("not closed: %v", err)
	}
}

// A condition on a header matches the header that is sent upstream, not the
// client's claims.
func TestConditionsDoNotHoldForFieldsThatAreRemoved(t *testing.T) {
	w := newTestbed(t)
	yes := &Action{Respond: &Respond{Code: 200}}
	_, address := w.gateway(fixed(&Table{Routes: w.routes(
		route.Rule[*Action]{Name: "origin", Headers: []route.Header{{Name: "X-Forwarded-For"}}, Value: yes},
		route.Rule[*Action]{Name: "listed", Headers: []route.Header{{Name: "X-Listed"}}, Value: yes},
		route.Rule[*Action]{Name: "plain", Headers: []route.Header{{Name: "X-Plain"}}, Value: yes},
	)}))
	for field, code := range map[string]int{"X-Forwarded-For: 10.0.0.1": 404, "X-Listed: 1": 404, "x-plain: 1": 200} {
		c := w.dial(address)
		c.send("GET / HTTP/1.1", "Host: a", "Connection: X-Listed", field)
		if res, _ := c.answer(t, "GET"); res.StatusCode != code {
			t.Errorf("%s: %d, want %d", field, res.StatusCode, code)
		}
		c.Close()
	}
}
