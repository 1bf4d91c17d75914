package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// A server is an HTTPS server that requires a client certificate.
type server struct {
	address string
	stop    func()
}

// serve starts a server that gives every request the same response.
func serve(ca *pki.CA, name string, code int, body string) (*server, error) {
	config, err := ca.MutualTLS(name)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &http.Server{
		TLSConfig:         config,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // the gateways report failed handshakes
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			fmt.Fprintln(w, body)
		}),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.ServeTLS(l, "", "")
	}()
	return &server{l.Addr().String(), func() {
		srv.Close()
		<-ended
	}}, nil
}

const (
	requestTimeout = 30 * time.Second
	requestPause   = 20 * time.Millisecond // between the requests of a client
)

// Traffic is one client for each gateway. Each sends requests to its gateway and, like a
// load balancer, sends a request to the next gateway if the connection fails.
type traffic struct {
	targets []atomic.Pointer[string] // the address of each gateway's listener
	clients sync.WaitGroup
	stop    func()
	total   counts
}

// counts are requests by result.
type counts struct {
	ok, moved, errors, failed atomic.Int64
}

// since returns the counts as text, and sets them to 0.
func (t *traffic) since() (text string, failed int64) {
	ok, moved, errors, failed := t.total.ok.Swap(0), t.total.moved.Swap(0), t.total.errors.Swap(0), t.total.failed.Swap(0)
	text = fmt.Sprintf("%d requests got 200", ok)
	if moved > 0 {
		text += fmt.Sprintf(", %d of them at another gateway because their own gateway was down", moved)
	}
	return text + fmt.Sprintf("; %d got 500; %d failed", errors, failed), failed
}

// startTraffic starts the clients.
func startTraffic(ctx context.Context, addresses []string) *traffic {
	ctx, cancel := context.WithCancel(ctx)
	t := &traffic{targets: make([]atomic.Pointer[string], len(addresses))}
	t.stop = func() {
		cancel()
		t.clients.Wait()
	}
	for i := range addresses {
		t.targets[i].Store(&addresses[i])
	}
	for i := range addresses {
		t.clients.Go(func() { t.client(ctx, i) })
	}
	return t
}

// client sends requests until ctx ends.
func (t *traffic) client(ctx context.Context, own int) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: requestTimeout}
	tick := time.NewTicker(requestPause)
	defer tick.Stop()
	for ctx.Err() == nil {
		code, tried := 0, 0
		for ; tried < len(t.targets) && code == 0; tried++ {
			code = get(ctx, client, *t.targets[(own+tried)%len(t.targets)].Load())
		}
		switch {
		case ctx.Err() != nil:
			return
		case code == http.StatusOK:
			t.total.ok.Add(1)
			if tried > 1 {
				t.total.moved.Add(1)
			}
		case code != 0:
			t.total.errors.Add(1)
		default:
			t.total.failed.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// get returns the status code of a request, or 0 if there is no response.
func get(ctx context.Context, client *http.Client, address string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return 0
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}
