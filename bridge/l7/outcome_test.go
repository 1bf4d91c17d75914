package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// ejectingAt returns a Back to one endpoint that is ejected after three failures in a
// row, and to a backup.
func (w *testbed) ejectingAt(p backs.Protocol, address string) *backs.Pools {
	protos := map[backs.Protocol][]string{backs.HTTP1: {"http/1.1"}, backs.HTTP2: {"h2"}}[p]
	spare := w.server(echo, protos...)
	o := upstream.Options{Name: "up", Logger: w.logger(hclog.Warn), ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Outliers: &upstream.OutlierOptions{Failures: 3, MaxPercent: 50}}
	for _, a := range []string{address, spare} {
		o.Endpoints = append(o.Endpoints, upstream.EndpointOptions{
			Network: "tcp", Address: a, Stream: w.client(), HTTP: w.client(protos...), Backup: a == spare,
		})
	}
	u := upstream.New(o)
	w.Cleanup(u.Retire)
	return w.newBack(backs.Options{Upstream: u, Protocol: p, TLS: true})
}

func TestResponsesEjectEndpoints(t *testing.T) {
	// Ways to answer, for handlers of net/http.
	code := func(n int) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(n) }
	}
	call := func(status string, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/grpc")
			if body == "" {
				rw.Header().Set("Grpc-Status", status)
				return
			}
			io.WriteString(rw, body)
			http.NewResponseController(rw).Flush() // in HTTP/1.1 only chunks have trailers
			rw.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
		}
	}
	abort := func(written string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			io.WriteString(rw, written)
			if written != "" {
				http.NewResponseController(rw).Flush()
			}
			panic(http.ErrAbortHandler)
		}
	}
	hang := func(written string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			io.WriteString(rw, written)
			if written != "" {
				http.NewResponseController(rw).Flush()
			}
			<-r.Context().Done()
		}
	}
	// Ways to send a request.
	get := func(w *testbed, address string) {
		if res, err := w.browser().Get("http://" + address); err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	callGRPC := func(w *testbed, address string) {
		req, _ := http.NewRequest("POST", "http://"+address, strings.NewReader("x"))
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		if res, err := w.browser().Do(req); err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	leave := func(after int) func(w *testbed, address string) {
		return func(w *testbed, address string) {
			c, err := net.Dial("tcp", address)
			if err != nil {
				w.Fatal(err)
			}
			defer c.Close()
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			r := bufio.NewReader(c)
			for range after {
				if _, err := r.ReadString('\n'); err != nil {
					w.Error(err)
				}
			}
		}
	}
	stall := func(w *testbed, address string) {
		c := w.dial(address)
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
		io.Copy(io.Discard, c) // waits until the gateway has timed out
	}
	for _, test := range []struct {
		name    string
		answer  http.HandlerFunc
		ask     func(w *testbed, address string)
		bounds  Forward
		ejected bool
		counted certs.Reason // the reason of the counted failure; "": none
	}{
		{"200", code(200), get, Forward{}, false, ""},
		{"404", code(404), get, Forward{}, false, ""},
		{"500", code(500), get, Forward{}, true, ""},
		{"503 with a body", func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "down", http.StatusServiceUnavailable) }, get, Forward{}, true, ""},
		{"gRPC OK", call("0", "body"), callGRPC, Forward{}, false, ""},
		{"gRPC NOT_FOUND", call("5", ""), callGRPC, Forward{}, false, ""},
		{"gRPC DEADLINE_EXCEEDED, which clients set", call("4", "body"), callGRPC, Forward{}, false, ""},
		{"gRPC UNIMPLEMENTED", call("12", ""), callGRPC, Forward{}, false, ""},
		{"gRPC UNAVAILABLE in the header", call("14", ""), callGRPC, Forward{}, true, ""},
		{"gRPC INTERNAL in the trailer", call("13", "body"), callGRPC, Forward{}, true, ""},
		{"a gRPC status in a response that is not gRPC", call("14", ""), get, Forward{}, false, ""},
		{"no response", abort(""), get, Forward{}, true, certs.ReasonResponseBroken},
		{"half a response", abort("half"), get, Forward{}, true, certs.ReasonResponseBroken},
		{"no response before the timeout", hang(""), get, Forward{Timeout: 30 * time.Millisecond}, true, certs.ReasonResponseTimeout},
		{"half a response before the total timeout", hang("half"), get, Forward{TotalTimeout: 30 * time.Millisecond}, true, certs.ReasonResponseTimeout},
		{"clients that leave before the response", hang(""), leave(0), Forward{}, false, ""},
		{"clients that leave during the response", hang("half\n"), leave(2), Forward{}, false, ""},
		{"clients that do not send their body in time", func(rw http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }, stall,
			Forward{Timeout: 30 * time.Millisecond}, false, ""},
		{"no response before the timeout of a try", hang(""), get, Forward{Retry: &exchange.Retry{PerTry: 30 * time.Millisecond}}, true, certs.ReasonResponseTimeout},
	} {
		for name, p := range map[string]backs.Protocol{"HTTP/1.1": backs.HTTP1, "HTTP/2": backs.HTTP2} {
			t.Run(test.name+" over "+name, func(t *testing.T) {
				t.Parallel()
				w := newTestbed(t)
				back := w.ejectingAt(p, w.server(test.answer, "h2", "http/1.1"))
				action := to(back)
				action.Forward.Timeout, action.Forward.TotalTimeout, action.Forward.Retry = test.bounds.Timeout, test.bounds.TotalTimeout, test.bounds.Retry
				s, address := w.gateway(fixed(&Table{Default: action}))
				available := func() bool { return back.Upstream().Status()[0].Available }
				// On a slow machine, the timeout may pass before the connection exists.
				// Such a request says nothing about the response.
				for i := 0; i < 3 || test.ejected && available() && test.bounds != (Forward{}) && i < 100; i++ {
					if i < 3 && !available() {
						t.Fatalf("after %d: %s", i, back.Upstream().Status()[0].Unavailable)
					}
					test.ask(w, address)
					eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
				}
				st := back.Upstream().Status()[0]
				if st.Available == test.ejected {
					t.Errorf("available: %v (%s)", st.Available, st.Unavailable)
				}
				if test.counted == "" && len(st.Failures) > 0 || test.counted != "" && st.Failures[test.counted] < 3 {
					t.Errorf("failures of the endpoint: %v, want 3 or more %q", st.Failures, test.counted)
				}
				if test.ejected && test.bounds == (Forward{}) {
					if code, _ := w.get(w.browser(), "http://"+address); code != 200 {
						t.Errorf("the backup answers %d", code)
					}
				}
			})
		}
	}
}

// A success in between resets the count, for every source that reports one.
func TestSuccessResetsTheFailureCount(t *testing.T) {
	w := newTestbed(t)
	n := 0
	back := w.ejectingAt(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if n++; n%3 != 0 {
			rw.WriteHeader(500)
		}
		io.WriteString(rw, "body")
	}), "http/1.1"))
	_, address := w.plain(back)
	for range 12 {
		w.get(w.browser(), "http://"+address)
	}
	if st := back.Upstream().Status()[0]; !st.Available {
		t.Errorf("%s", st.Unavailable)
	}
}
