package l7

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// silent begins a response of a protocol, and sends nothing more.
func (w *world) silent(proto, length string) (address string) {
	return w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if length != "" {
			rw.Header().Set("Content-Length", length)
		}
		fmt.Fprint(rw, "begun")
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	}), proto)
}

func (w *world) impatient(p Protocol, idle time.Duration, address string) *Back {
	protos := map[Protocol]string{HTTP1: "http/1.1", HTTP2: "h2"}
	return w.newBack(BackOptions{Protocol: p, TLS: true, Upstream: upstream.New(upstream.Options{
		Name: "up", Logger: w.logger(hclog.Warn), IdleTimeout: idle,
		Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: address, Stream: w.client(), HTTP: w.client(protos[p])}},
	})})
}

// A response of which nothing more comes is cut off, so that no client takes it
// for complete, and the log says why.
func TestAResponseThatStallsIsCutOff(t *testing.T) {
	for _, p := range []Protocol{HTTP1, HTTP2} {
		for _, length := range []string{"", "100"} {
			for _, front := range []string{"HTTP/1.1", "HTTP/2.0"} {
				t.Run(fmt.Sprintf("from %d to %s, length %q", p, front, length), func(t *testing.T) {
					w := newWorld(t)
					back := w.impatient(p, 50*time.Millisecond, w.silent(map[Protocol]string{HTTP1: "http/1.1", HTTP2: "h2"}[p], length))
					table := &Table{Default: to(back)}
					url := "http://"
					if front == "HTTP/2.0" {
						table.TLS, url = w.listenerTLS("h2"), "https://"
					}
					_, address := w.gateway(fixed(table))
					res, err := w.browser().Get(url + address + "/")
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					body, err := io.ReadAll(res.Body)
					if string(body) != "begun" || err == nil || res.Proto != front {
						t.Errorf("%s: %q, %v", res.Proto, body, err)
					}
					eventually(t, "it is logged", func() bool { return strings.Contains(w.log.String(), "reason=RESPONSE_TIMEOUT") })
					if s := back.options.Upstream.Load(); s.InFlight != 0 {
						eventually(t, "it is over", func() bool { return back.options.Upstream.Load().InFlight == 0 })
					}
				})
			}
		}
	}
}

// What counts is that nothing comes: not how long all of it takes, nor how long
// the client takes.
func TestWhatCountsAsAStall(t *testing.T) {
	w := newWorld(t)
	s := New(Options{Table: fixed(nil)})
	defer func() { _ = s.Shutdown(t.Context()) }()
	const idle = time.Hour // no timer fires
	x := &exchange{server: s, back: w.impatient(HTTP1, idle, "127.0.0.1:1")}
	x.stall.check = x.stalled
	defer x.endWatch()
	pass := func(d time.Duration) {
		s.clock.now.Add(int64(d))
		x.stalled()
	}
	x.watch()
	x.unwatch()
	pass(1)
	for range 5 { // a body that comes in pieces
		x.watch()
		pass(idle * 9 / 10)
		x.unwatch()
	}
	pass(10 * idle) // while the client takes nothing
	if x.ended() {
		t.Fatal("it is cut off, though it comes")
	}
	x.watch()
	pass(idle / 2)
	pass(idle / 2)
	if !x.ended() || x.cause != errStalled {
		t.Errorf("it goes on, though nothing comes: %v", x.cause)
	}
}

// Without a limit nothing is watched.
func TestWithoutALimitNothingStalls(t *testing.T) {
	w := newWorld(t)
	x := &exchange{server: New(Options{Table: fixed(nil)}), back: w.impatient(HTTP1, 0, "127.0.0.1:1")}
	defer func() { _ = x.server.Shutdown(t.Context()) }()
	x.watch()
	if x.unwatch(); x.stall.timer != nil {
		t.Error("there is a timer")
	}
	x.endWatch()
}

// The connection of a client whose response was cut off is no use to it any more,
// but another request is served as if nothing had been.
func TestAfterAStallRequestsAreServed(t *testing.T) {
	w := newWorld(t)
	address := w.raw(w.serverTLS("http/1.1"), func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.URL.Path == "/stall" {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
				continue
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde")
		}
	})
	back := w.impatient(HTTP1, 20*time.Millisecond, address)
	_, gateway := w.plain(back)
	for range 20 {
		res, err := w.browser().Get("http://" + gateway + "/stall")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) && err == nil {
			t.Error("a response that was cut off looks complete")
		}
		res.Body.Close()
		if code, body := w.get(w.browser(), "http://"+gateway+"/"); code != 200 || body != "abcde" {
			t.Errorf("%d %q", code, body)
		}
	}
}
