package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
)

// requests sends the path of each request that reaches an upstream to seen.
func requests(seen chan<- string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		seen <- r.URL.Path
		_, _ = io.Copy(io.Discard, r.Body)
	})
}

func TestBytesAfterABrokenBodyAreNotARequest(t *testing.T) {
	for name, body := range map[string]string{
		"no size":                         "zz\r\n",
		"no line end after the chunk":     "5\r\nhelloXX",
		"a line feed inside the line end": "5;\nx\r\nhello\r\n",
		"a size that overflows":           "fffffffffffffffff\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestbed(t)
			seen := make(chan string, 10)
			_, address := w.plain(w.back(backs.HTTP1, w.server(requests(seen))))
			c := w.dial(address)
			fmt.Fprintf(c, "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%sGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", body)
			if res, _ := c.answer(t, "POST"); res.StatusCode != 400 || !res.Close {
				t.Errorf("%d, close %v", res.StatusCode, res.Close)
			}
			if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != nil {
				t.Errorf("unexpected second response: %q, %v", rest, err)
			}
			for len(seen) > 0 {
				if path := <-seen; path != "/first" {
					t.Errorf("%s reached the upstream", path)
				}
			}
		})
	}
}

func TestBytesAfterAnUnreadBodyAreNotARequest(t *testing.T) {
	w := newTestbed(t)
	seen := make(chan string, 10)
	_, address := w.plain(w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		seen <- r.URL.Path
		fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	})))
	c := w.dial(address)
	c.send("POST /first HTTP/1.1", "Host: a", "Transfer-Encoding: chunked")
	if res, _ := c.answer(t, "POST"); res.StatusCode != 403 || !res.Close {
		t.Errorf("%d, close %v", res.StatusCode, res.Close)
	}
	fmt.Fprint(c, "zz\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	if rest, _ := io.ReadAll(c.r); len(rest) > 0 {
		t.Errorf("unexpected second response: %q", rest)
	}
	if path := <-seen; path != "/first" || len(seen) > 0 {
		t.Errorf("%s and %d more reached the upstream", path, len(seen))
	}
}

func TestAConnectionIsKeptAfterAWholeBody(t *testing.T) {
	w := newTestbed(t)
	_, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(echo))), IdleTimeout: testTimeout}))
	c := w.dial(address)
	for _, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		for range 20 {
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\n%s", body)
			if res, b := c.answer(t, "POST"); res.StatusCode != 200 || res.Close || !strings.HasSuffix(b, ": hello") {
				t.Fatalf("%d, close %v, %q", res.StatusCode, res.Close, b)
			}
		}
	}
}

func TestStalledBodyTimesOut(t *testing.T) {
	for _, body := range []string{"Content-Length: 5\r\n\r\nhe", "Transfer-Encoding: chunked\r\n\r\n5\r\nhe", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"} {
		withGrowingLimit(t, 50*time.Millisecond, func(limit time.Duration) bool {
			w := newTestbed(t)
			_, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(echo))), IdleTimeout: limit}))
			c := w.dial(address)
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\n%s", body)
			if c.closedUnanswered() {
				return false
			}
			if res, b := c.answer(t, "POST"); res.StatusCode != 408 || b != "request timeout\n" {
				t.Errorf("%q: %d %q", body, res.StatusCode, b)
			}
			if _, err := io.Copy(io.Discard, c.r); err != nil {
				t.Errorf("not closed: %v", err)
			}
			return true
		})
	}
}

func TestUnreadResponseIsCutOff(t *testing.T) {
	schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
		withGrowingLimit(t, 50*time.Millisecond, func(limit time.Duration) bool {
			ended, table := make(chan struct{}, 10), *table
			table.Default = to(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				for {
					if _, err := rw.Write(make([]byte, 1<<20)); err != nil {
						ended <- struct{}{}
						return
					}
				}
			}))))
			table.IdleTimeout = limit
			s, address := w.gateway(fixed(&table))
			res, err := w.browser().Get(scheme + "://" + address)
			if err != nil {
				return false // the gateway closed the connection before the request came
			}
			defer res.Body.Close()
			if res.ProtoMajor == 2 {
				t.Skip("an HTTP/2 client may keep its window shut as long as its connection answers pings")
			}
			<-ended
			eventually(t, "the connection is closed", func() bool { return s.Stats().Open == 0 })
			return true
		})
	})
}

func TestTrailersCannotSetFieldsOfTheGateway(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			got := make(chan []string, 1)
			table.Default = to(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				var names []string
				for name := range r.Trailer {
					names = append(names, name)
				}
				slices.Sort(names)
				got <- names
			}), "h2", "http/1.1")))
			table.Default.RequestHeaders = policy.HeaderRules{Remove: []string{"x-role"}, Set: values("X-Tenant: a")}
			_, address := w.gateway(fixed(table))
			r, _ := http.NewRequest("POST", scheme+"://"+address, io.MultiReader(strings.NewReader("body")))
			r.Trailer = http.Header{"Sum": {"1"}, "X-Forwarded-For": {"6.6.6.6"}, "Forwarded": {"for=6.6.6.6"}, "X_forwarded_host": {"x"}, "X-Role": {"admin"}, "X-Tenant": {"b"}}
			res, err := w.browser().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if names := <-got; !slices.Equal(names, []string{"Sum"}) {
				t.Errorf("%v arrived", names)
			}
		})
	}
}

func TestInvalidStatusCodeIsABadGateway(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			fmt.Fprint(c, "HTTP/1.1 000 None\r\nContent-Length: 0\r\n\r\n")
		}
	})))
	if code, body := w.get(w.browser(), "http://"+address); code != 502 || body != "bad gateway\n" {
		t.Errorf("%d %q", code, body)
	}
	if strings.Contains(w.log.String(), "panic") {
		t.Error(w.log.String())
	}
}
