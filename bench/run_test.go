package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

// tiny returns the options of a run of the given rows, with the tunnel as
// subject.
func tiny(t *testing.T, rows ...row) *options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &options{
		rows: rows, subject: []proxy.Kind{proxy.IOCopy{Program: self}},
		pairs: 2, warmUp: time.Millisecond, length: 20 * time.Millisecond, silence: time.Millisecond,
	}
}

func TestEveryKindOfWorkIsMeasuredAndVerified(t *testing.T) {
	o := tiny(t,
		row{name: "down", work: work{load: load.Down(2), workers: 2}, unit: perGiB},
		row{name: "up", work: work{load: load.Up(2), workers: 2, atBackend: true}, unit: perGiB},
		row{name: "echo", work: work{load: load.Echo(8, 64), workers: 8}, unit: perMessage},
		row{name: "churn", work: work{load: load.Churn(4, 64, 0), workers: 4}, unit: perConnection},
		row{name: "bridge", service: proxy.Service{ListenTLS: true}, work: work{load: load.Down(2), workers: 2}, unit: perGiB},
		row{name: "paced", work: work{load: load.Churn(4, 64, 1000), workers: 4}, unit: perConnection},
		row{name: "idle", work: work{idle: 20, idler: load.IdleEcho}, unit: perIdle},
	)
	r, err := o.run(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.failed(); err != nil {
		t.Fatal(err)
	}
	for i, res := range r.Rows {
		samples := res.Samples["iocopy"]
		if len(samples) != 2 {
			t.Errorf("%s: %d samples, want 2; skipped: %v", res.Row, len(samples), res.Skipped)
		}
		for _, s := range samples {
			if s.Units == 0 {
				t.Errorf("%s: no units in %+v", res.Row, s)
			}
			if latencies := o.rows[i].unit == perMessage || o.rows[i].unit == perConnection; latencies && (s.P50 <= 0 || s.P99 < s.P50) {
				t.Errorf("%s: no latencies in %+v", res.Row, s)
			}
		}
	}
	path := filepath.Join(t.TempDir(), "run.json")
	if err := r.writeJSON(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back run
	if err := json.Unmarshal(data, &back); err != nil || len(back.Rows) != len(r.Rows) {
		t.Errorf("the JSON has %d rows, %v; want %d", len(back.Rows), err, len(r.Rows))
	}
}

// The floor delivers every byte. Otherwise its figures would be meaningless.
func TestFloorForwardsEveryByte(t *testing.T) {
	o := tiny(t,
		row{name: "down", work: work{load: load.Down(3), workers: 3}, unit: perGiB},
		row{name: "up", work: work{load: load.Up(3), workers: 3, atBackend: true}, unit: perGiB},
		row{name: "echo", work: work{load: load.Echo(8, 64), workers: 8}, unit: perMessage},
		row{name: "large", work: work{load: load.Echo(2, 100_000), workers: 2}, unit: perMessage},
		row{name: "small", service: proxy.Service{HTTP: true}, work: work{load: load.HTTP(4, 1<<10, load.Requests), workers: 4}, unit: perRequest},
		row{name: "bulk", service: proxy.Service{HTTP: true}, work: work{load: load.HTTP(2, 1<<20, load.Bytes), workers: 2}, unit: perGiB},
	)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.subject[0] = proxy.Floor{Program: self}
	r, err := o.run(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.failed(); err != nil {
		t.Fatal(err)
	}
	for _, res := range r.Rows {
		if len(res.Samples["floor"]) != o.pairs {
			t.Errorf("%s: %d samples, skipped: %v", res.Row, len(res.Samples["floor"]), res.Skipped)
		}
	}
}

// overBytes is a tunnel that accepts HTTP services, which it forwards as
// bytes.
type overBytes struct{ proxy.IOCopy }

func (overBytes) Unsupported(proxy.Service) string { return "" }

func TestHTTPIsMeasuredAndVerified(t *testing.T) {
	o := tiny(t,
		row{name: "small", service: proxy.Service{HTTP: true}, work: work{load: load.HTTP(4, 1<<10, load.Requests), workers: 4}, unit: perRequest},
		row{name: "bulk", service: proxy.Service{HTTP: true, ListenTLS: true}, work: work{load: load.HTTP(2, 1<<20, load.Bytes), workers: 2}, unit: perGiB},
		row{name: "hosts", service: proxy.Service{HTTP: true}, work: work{load: load.HTTPHosts(2, 100, load.Requests, []string{"a.test", "b.test"}), workers: 2}, unit: perRequest},
		row{name: "http2", service: proxy.Service{HTTP: true, ListenTLS: true, ClientHTTP2: true, UpstreamHTTP2: true}, work: work{load: load.HTTP2(2, 2, 1<<10), workers: 4}, unit: perRequest},
		row{name: "unary", service: grpcService, work: work{load: load.GRPCUnary(2, 2, 64), workers: 4}, unit: perCall},
		row{name: "stream", service: grpcService, work: work{load: load.GRPCStream(2, 2, 64), workers: 4}, unit: perMessage},
		row{name: "websocket", service: proxy.Service{HTTP: true, WebSocket: true}, work: work{load: load.WebSocket(4, 64), workers: 4}, unit: perMessage},
		row{name: "idle", service: proxy.Service{HTTP: true}, work: work{idle: 10, idler: load.IdleHTTP}, unit: perIdle},
	)
	o.subject[0] = overBytes{o.subject[0].(proxy.IOCopy)}
	r, err := o.run(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.failed(); err != nil {
		t.Fatal(err)
	}
	for _, res := range r.Rows {
		for _, s := range res.Samples["iocopy"] {
			if s.Units == 0 {
				t.Errorf("%s: no units in %+v", res.Row, s)
			}
		}
	}
}

// corrupting runs a tunnel that sends its clients a wrong byte.
func corrupting(ctx context.Context, t *testing.T, target load.Target) load.Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target.Address)
			if err != nil {
				_ = client.Close()
				return
			}
			go func() {
				defer server.Close()
				_, _ = io.Copy(server, client)
			}()
			go func() {
				defer client.Close()
				buf := make([]byte, 1)
				if _, err := io.ReadFull(server, buf); err != nil {
					return
				}
				buf[0] ^= 1
				_, _ = client.Write(buf)
				_, _ = io.Copy(client, server)
			}()
		}
	}()
	return load.Target{Address: l.Addr().String(), TLS: target.TLS}
}

func TestAWrongByteFailsTheRow(t *testing.T) {
	for name, drive := range map[string]load.Func{"down": load.Down(1), "echo": load.Echo(1, 64), "churn": load.Churn(1, 64, 0)} {
		o := tiny(t, row{name: name, work: work{workers: 1, load: func(ctx context.Context, target load.Target, m *load.Meter) {
			drive(ctx, corrupting(ctx, t, target), m)
		}}, unit: perMessage})
		r, err := o.run(t.Context(), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		err = r.failed()
		if err == nil || !strings.Contains(err.Error(), "1 brought wrong bytes") {
			t.Errorf("%s: got %v, want a failure for a wrong byte", name, err)
		}
		var text bytes.Buffer
		r.writeText(&text)
	}
}

func TestAProxyThatDoesNotStartFailsTheRowWithItsOutput(t *testing.T) {
	o := tiny(t, row{name: "down", work: work{load: load.Down(1), workers: 1}, unit: perGiB})
	o.subject = []proxy.Kind{proxy.IOCopy{Program: "/bin/false"}}
	r, err := o.run(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.failed(); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("got %v, want a failure with the exit status", err)
	}
}
