package l4_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// echoes starts an endpoint that echoes.
func echoes(t testing.TB) upstream.EndpointOptions {
	ln := listen(t, "tcp")
	var conns sync.WaitGroup
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done; conns.Wait() })
	return plain(ln)
}

// greet sends a byte over a new connection and waits for the echo.
func greet(t testing.TB, address string) (net.Conn, error) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil { // the reset came before connect returned
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte("x")); err != nil {
		return c, err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return c, err
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// A connection beyond an upstream's limit is reset; with a queue it proceeds once
// another connection has ended.
func TestConnectionsOverALimitWaitOrAreReset(t *testing.T) {
	for name, l := range map[string]upstream.Limits{
		"requests": {Requests: 1}, "requests of an endpoint": {RequestsPerEndpoint: 1},
		"connections": {Connections: 1}, "connections of an endpoint": {ConnectionsPerEndpoint: 1},
	} {
		t.Run(name, func(t *testing.T) {
			l.Pending, l.PendingTimeout = 1, time.Hour
			u := upstream.New(upstream.Options{Name: "group", Limits: l, Endpoints: []upstream.EndpointOptions{echoes(t)}})
			var log bytes.Buffer
			g := open(t, "tcp", l4.Options{
				Listener: "test", Table: func() *l4.Table { return &l4.Table{Default: to(u)} },
				Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Debug, Mutex: new(sync.Mutex)}),
			})
			first, err := greet(t, g.address)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() {
				_, err := greet(t, g.address)
				served <- err
			}()
			eventually(t, "the second waits", func() bool { return u.Load().Pending == 1 })
			if _, err := greet(t, g.address); !isReset(err) {
				t.Errorf("the third connection: %v, want a reset", err)
			}
			if load := u.Load(); load != (upstream.Load{InFlight: 1, Pending: 1, Overloaded: 1}) {
				t.Errorf("load %+v", load)
			}
			first.Close()
			if err := <-served; err != nil {
				t.Errorf("the second connection: %v", err)
			}
			if g.Shutdown(canceled()); !strings.Contains(log.String(), "reason=OVERLOADED") {
				t.Errorf("log: %s", log.String())
			}
			if load := u.Load(); load.InFlight != 0 || load.Pending != 0 {
				t.Errorf("load %+v at the end", load)
			}
		})
	}
}

// Shutdown ends connections that wait for an upstream.
func TestShutdownEndsWaitingConnections(t *testing.T) {
	u := upstream.New(upstream.Options{Name: "group", Limits: upstream.Limits{Requests: 1, Pending: 5, PendingTimeout: time.Hour}, Endpoints: []upstream.EndpointOptions{echoes(t)}})
	g := serve(t, &l4.Table{Default: to(u)})
	if _, err := greet(t, g.address); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := greet(t, g.address)
		ended <- err
	}()
	eventually(t, "one request waits", func() bool { return u.Load().Pending == 1 })
	g.Shutdown(canceled())
	if err := <-ended; err == nil {
		t.Error("the waiting connection was served")
	}
}

// All connections from one address go to one endpoint.
func TestConnectionsOfOneAddressGoToOneEndpoint(t *testing.T) {
	o := upstream.Options{Name: "group", Policy: upstream.ConsistentHash, Hash: upstream.HashKey{ClientAddress: true}}
	for range 5 {
		o.Endpoints = append(o.Endpoints, echoes(t))
	}
	made := func(o upstream.Options) (used int) {
		u := upstream.New(o)
		g := serve(t, &l4.Table{Default: to(u)})
		for range 40 {
			if _, err := greet(t, g.address); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range u.Status() {
			if s.Made > 0 {
				used++
			}
		}
		return used
	}
	if n := made(o); n != 1 {
		t.Errorf("one client's connections went to %d endpoints", n)
	}
	o.Hash = upstream.HashKey{Header: "X-Tenant"}
	if n := made(o); n != 5 {
		t.Errorf("without a key connections went to %d endpoints", n)
	}
}

// The shorter idle timeout, the listener's or the upstream's, ends a silent connection.
func TestShorterIdleTimeoutApplies(t *testing.T) {
	for _, c := range []struct{ listener, upstream time.Duration }{{time.Hour, 50 * time.Millisecond}, {50 * time.Millisecond, time.Hour}} {
		u := upstream.New(upstream.Options{Name: "group", IdleTimeout: c.upstream, Endpoints: []upstream.EndpointOptions{echoes(t)}})
		g := serve(t, &l4.Table{Default: to(u), IdleTimeout: c.listener})
		conn, err := greet(t, g.address)
		if err == nil { // otherwise the machine took longer than the timeout
			_, err = conn.Read(make([]byte, 1))
		}
		if !isReset(err) {
			t.Errorf("%+v: %v, want a reset", c, err)
		}
	}
}
