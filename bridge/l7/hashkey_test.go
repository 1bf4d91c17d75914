package l7

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// named returns a handler that answers with a name.
func named(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })
}

// hashing returns a Back to n endpoints with consistent hashing.
func (w *testbed) hashing(h upstream.HashKey, endpoints int) *backs.Pools {
	o := upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Policy: upstream.ConsistentHash, Hash: h}
	for i := range endpoints {
		o.Endpoints = append(o.Endpoints, upstream.EndpointOptions{
			Network: "tcp", Address: w.server(named(strconv.Itoa(i))), Stream: w.client(), HTTP: w.client("http/1.1"),
		})
	}
	return w.newBack(backs.Options{Upstream: upstream.New(o), TLS: true})
}

// Requests with the same value go to the same endpoint, over every version of HTTP,
// and different values reach every endpoint.
func TestRequestsOfOneKeyGoToOneEndpoint(t *testing.T) {
	for _, c := range []struct {
		name string
		upstream.HashKey
		set func(r *http.Request, value string)
	}{
		{"header", upstream.HashKey{Header: "X-Tenant"}, func(r *http.Request, v string) { r.Header.Set("x-tenant", v) }},
		{"the first header", upstream.HashKey{Header: "X-Tenant"}, func(r *http.Request, v string) { r.Header["X-Tenant"] = []string{v, "other"} }},
		{"cookie", upstream.HashKey{Cookie: "session"}, func(r *http.Request, v string) {
			r.AddCookie(&http.Cookie{Name: "Session", Value: "x"})
			r.AddCookie(&http.Cookie{Name: "session", Value: v})
			r.AddCookie(&http.Cookie{Name: "z", Value: r.RemoteAddr})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTestbed(t)
			back := w.hashing(c.HashKey, 4)
			table := &Table{Default: to(back), TLS: w.listenerTLS("h2", "http/1.1")}
			_, secure := w.gateway(fixed(table))
			_, plain := w.plain(back)
			browser := w.browser()
			ask := func(url, value string) string {
				r, _ := http.NewRequest("GET", url, nil)
				if value != "" {
					c.set(r, value)
				}
				res, err := browser.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				return string(body)
			}
			seen, without := map[string]bool{}, map[string]bool{}
			for i := range 40 {
				value := "tenant-" + strconv.Itoa(i)
				first := ask("https://"+secure+"/", value)
				for _, url := range []string{"https://" + secure + "/a", "http://" + plain + "/b"} {
					if again := ask(url, value); again != first {
						t.Errorf("%s went to %s and to %s", value, first, again)
					}
				}
				seen[first] = true
				without[ask("http://"+plain+"/", "")] = true
			}
			if len(seen) != 4 || len(without) != 4 {
				t.Errorf("40 keys went to %d endpoints, requests without a key to %d", len(seen), len(without))
			}
		})
	}
}

func TestClientsOfOneAddressGoToOneEndpoint(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.hashing(upstream.HashKey{ClientAddress: true}, 4))
	_, first := w.get(w.browser(), "http://"+address+"/")
	for range 20 {
		if _, again := w.get(w.browser(), "http://"+address+"/"); again != first {
			t.Fatalf("one client went to %s and to %s", first, again)
		}
	}
}
