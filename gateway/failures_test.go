package gateway

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// served starts a server that calls f for each connection, and returns its
// address.
func served(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() { ln.Close(); all.Wait() })
	return ln.Addr().String()
}

// A failure on an established connection appears in the status of its endpoint, with
// its own reason, and in the metrics. A failure that a client causes does not.
func TestFailuresInUseAreCountedAtTheirEndpoint(t *testing.T) {
	half := func(then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			then(c)
		}
	}
	wait := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }
	pong := func(then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.ReadFull(c, make([]byte, 4))
			fmt.Fprint(c, "pong")
			_, _ = io.ReadFull(c, make([]byte, 4)) // waits for the client's data, so that the reset does not overtake it
			then(c)
		}
	}
	g := start(t, "")
	for _, c := range []struct {
		name   string
		serve  func(net.Conn)
		client func(c *stream)
		http   bool
		want   string // reasons and their counts
	}{
		{"tcp-reset", pong(reset), nil, false, "REASON_UPSTREAM_RESET 1"},
		{"tcp-client-reset", pong(wait), func(c *stream) { _ = c.Conn.(*net.TCPConn).SetLinger(0) }, false, ""},
		{"tcp-closed", pong(func(net.Conn) {}), nil, false, ""},
		{"http-broken", half(func(net.Conn) {}), nil, true, "REASON_RESPONSE_BROKEN 1"},
		{"http-late", half(wait), nil, true, "REASON_RESPONSE_TIMEOUT 1"},
		{"http-client-gone", half(wait), func(c *stream) { _ = c.Conn.(*net.TCPConn).SetLinger(0) }, true, ""},
	} {
		u := plainUpstream(c.name, served(t, c.serve))
		if c.name == "http-late" {
			u.Timeouts = &adminv1.UpstreamTimeouts{Idle: durationpb.New(50 * time.Millisecond)}
		}
		l := tcpListener(c.name, "127.0.0.1:0")
		if c.http {
			l = httpListener(c.name, "127.0.0.1:0")
		}
		l.Upstream = c.name
		g.put(u, l)
		client := dial(t, g.address(c.name))
		answer := "pong"
		if c.http {
			fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
			answer = "half"
		} else {
			fmt.Fprint(client, "ping")
		}
		for got := ""; !strings.HasSuffix(got, answer); {
			b, err := client.r.ReadByte()
			if err != nil && c.name == "http-late" {
				break // on a busy machine, the timeout may pass before the test has read
			}
			if err != nil {
				t.Fatalf("%s: after %q: %v", c.name, got, err)
			}
			got += string(b)
		}
		if !c.http {
			fmt.Fprint(client, "done")
		}
		if c.client != nil {
			c.client(client)
			client.Close()
		} else {
			_, _ = io.Copy(io.Discard, client)
		}
		client.Close()
		eventually(t, c.name+" has ended", func() bool {
			for _, u := range g.UpstreamStatuses() {
				if u.GetName() == c.name {
					return u.GetEndpoints()[0].GetRequestsInFlight() == 0 && g.listener(c.name).GetConnections() == 0
				}
			}
			return false
		})
		// The goroutine that reports to the endpoint may still be running.
		got := func() string {
			var all []string
			for _, u := range g.UpstreamStatuses() {
				if u.GetName() == c.name {
					for _, f := range u.GetEndpoints()[0].GetFailures() {
						all = append(all, fmt.Sprint(f.GetReason(), " ", f.GetCount()))
					}
				}
			}
			return strings.Join(all, ", ")
		}
		if c.want != "" {
			eventually(t, c.name+" is counted", func() bool { return got() != "" })
		}
		if got := got(); got != c.want {
			t.Errorf("%s: the endpoint has failed by %q, want %q", c.name, got, c.want)
		}
	}
	_, text := get(t, "http://"+g.OpsAddress()+"/metrics")
	for _, want := range []string{
		`reason="UPSTREAM_RESET",upstream="tcp-reset"`, `reason="RESPONSE_BROKEN",upstream="http-broken"`, `reason="RESPONSE_TIMEOUT",upstream="http-late"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in the metrics", want)
		}
	}
}
