package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// BenchmarkListConnections measures the cost of a list of 10,000 connections: 9,000 idle
// clients of an HTTP listener over mutual TLS, and 1,000 warm connections to an upstream
// over mutual TLS. All are real sockets; the clients and the upstream are in this
// process, the gateway in another. It reports the time until the client has all pages,
// and the growth of the gateway's memory. On a machine that is busy with other work, run it
// with real-time priority (chrt -r 20), or it measures that work.
func BenchmarkListConnections(b *testing.B) {
	const clients, warm = 9000, 1000
	a := newAuthority(b)
	g := startGateway(b)
	up := upstream("raw", a.settings(), serveConns(b, a.serverConfig(b), func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
	up.Pool = &adminv1.Pool{Warm: warm}
	web := listener("web", protocolHTTP, "")
	web.Timeouts = &adminv1.ListenerTimeouts{Idle: durationpb.New(time.Hour)}
	answer := &adminv1.Route{Name: "answer", Listeners: []string{"web"}, Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{}}}
	web.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"ca"}}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server), up, listener("raw", protocolTCP, "raw"), web, answer)
	config := &tls.Config{RootCAs: pool(a.ca), ServerName: serverName, Certificates: []tls.Certificate{keyPair(b, a.client)}, ClientSessionCache: tls.NewLRUClientSessionCache(64)}
	keep(b, clients, g.address("web"), config)
	list := func() int {
		n, token := 0, ""
		for {
			page, err := g.status.ListConnections(context.Background(), &adminv1.ListConnectionsRequest{PageToken: token})
			if err != nil {
				b.Fatal(err)
			}
			n += len(page.GetConnections())
			if token = page.GetNextPageToken(); token == "" {
				return n
			}
		}
	}
	eventually(b, "all connections are open", func() bool { return list() == clients+warm })
	most, used := 0, processorTime(b, g.cmd.Process.Pid)
	for b.Loop() {
		b.StopTimer()
		before := memory(b, g.cmd.Process.Pid, "VmRSS")
		resetPeak(b, g.cmd.Process.Pid)
		b.StartTimer()
		if n := list(); n != clients+warm {
			b.Fatalf("%d connections are listed", n)
		}
		b.StopTimer()
		most = max(most, memory(b, g.cmd.Process.Pid, "VmHWM")-before)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/list")
	b.ReportMetric(float64((processorTime(b, g.cmd.Process.Pid)-used).Microseconds())/1000/float64(b.N), "gateway-CPU-ms/list")
	b.ReportMetric(float64(most)/1e6, "MB-most")
}

// keep opens n connections, and makes one request on each.
func keep(b *testing.B, n int, address string, config *tls.Config) {
	var all sync.WaitGroup
	dials := make(chan struct{}, 16)
	for range n {
		dials <- struct{}{}
		all.Go(func() {
			defer func() { <-dials }()
			c, err := tls.Dial("tcp", address, config)
			if err != nil {
				b.Error(err)
				return
			}
			b.Cleanup(func() { c.NetConn().Close() })
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: bridge.test\r\n\r\n")
			if _, err2 := c.Read(make([]byte, 1024)); err != nil || err2 != nil {
				b.Error(err, err2)
			}
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// processorTime returns the processor time that a process has used.
func processorTime(b *testing.B, pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	// Fields 14 and 15 count ticks of 10 ms; the second field, the name, may contain
	// blanks.
	_, after, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(after)
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// resetPeak resets the kernel's record of a process's peak memory to the
// current value.
func resetPeak(b *testing.B, pid int) {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
}
