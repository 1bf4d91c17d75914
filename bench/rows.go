package main

import (
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bench/backend"
	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

// A row is one kind of work for every proxy. To add a row, add it to rows: no
// other code refers to rows by name.
type row struct {
	name, title string
	service     proxy.Service
	// work is the measured work; exactly one of its fields is set.
	work work
	unit unit
	// group is the group of the row, and size is the number in which it differs
	// from the others. Most rows have no group.
	group string
	size  int
	// quick rows are part of the short form.
	quick bool
	// targets are the goals for Drawbridge, each beside a peer.
	targets []target
}

// work is a kind of measurement.
type work struct {
	// load runs for a while, with the given number of workers.
	load    load.Func
	workers int
	// atBackend counts the bytes that arrive at the backend as the units of work.
	atBackend bool

	// program runs for the duration of a load.
	program *load.Program

	// idle is a number of idle connections, made by idler.
	idle  int
	idler load.Idler

	// config is the number of upstreams and routes in a gateway's configuration.
	// The row changes one and uses some.
	config int
}

// A unit is the unit of a row's figure and its format.
type unit struct {
	name  string  // "CPU µs/message"
	scale float64 // the displayed number for 1 s per unit, or for 1 byte
	rate  string  // "messages/s"
	per   float64 // units of the load in one unit of the rate
}

const gib = 1 << 30

var (
	perGiB         = unit{"CPU s/GiB", gib, "GiB/s", gib}
	perMessage     = unit{"CPU µs/message", 1e6, "messages/s", 1}
	perConnection  = unit{"CPU µs/connection", 1e6, "connections/s", 1}
	perRequest     = unit{"CPU µs/request", 1e6, "requests/s", 1}
	perTransaction = unit{"CPU µs/transaction", 1e6, "transactions/s", 1}
	perCall        = unit{"CPU µs/call", 1e6, "calls/s", 1}
	perIdle        = unit{"KiB/connection", 1.0 / 1024, "", 1}
)

// A figure selects the compared number of a row.
type figure string

const (
	main1  figure = "figure" // CPU per unit, or memory per connection
	median figure = "p50"
)

// A target is an upper bound for a figure of Drawbridge.
type target struct {
	figure figure
	// peer is the compared proxy, and most a factor of its figure. Without a peer,
	// most is absolute, in the unit of the row.
	peer string
	most float64
}

func against(peer string, most float64) target { return target{main1, peer, most} }

var rows = []row{
	{
		name: "bulk-down", title: "4 connections, bytes from the backend to the client through L4",
		work: work{load: load.Down(4), workers: 4}, unit: perGiB, quick: true,
		targets: []target{against("nginx", 0.70), against("iocopy", 0.75)},
	},
	{
		name: "bulk-up", title: "4 connections, bytes from the client to the backend through L4",
		work: work{load: load.Up(4), workers: 4, atBackend: true}, unit: perGiB, quick: true,
		targets: []target{against("nginx", 0.70), against("iocopy", 0.75)},
	},
	{
		name: "reqresp", title: "64 connections, 64-byte messages there and back through L4",
		work: work{load: load.Echo(64, 64), workers: 64}, unit: perMessage, quick: true,
		targets: []target{against("nginx", 0.95)},
	},
	{
		name: "churn-resumed", title: "new connection, 64 bytes there and back, close; 16 at a time; sessions resumed where the proxy can",
		work: work{load: load.Churn(16, 64, 0), workers: 16}, unit: perConnection, quick: true,
		targets: []target{against("nginx", 1.15)},
	},
	{
		name: "churn-full", title: "the same with a full handshake for every connection",
		service: proxy.Service{NoResumption: true},
		work:    work{load: load.Churn(16, 64, 0), workers: 16}, unit: perConnection, quick: true,
		targets: []target{against("nginx", 1.3)},
	},
	{
		name: "churn-warm", title: "400 new connections a second, 64 bytes there and back, close; with pool.warm in Drawbridge",
		service: proxy.Service{Warm: 64},
		work:    work{load: load.Churn(16, 64, 400), workers: 16}, unit: perConnection, quick: true,
		targets: []target{{median, "nginx", 0.5}},
	},
	{
		name: "idle-2000", title: "2,000 connections that have each exchanged 64 bytes, after 5 s of silence",
		work: work{idle: 2000, idler: load.IdleEcho}, unit: perIdle, quick: true,
	},
	{
		name: "idle-4000", title: "4,000 connections that have each exchanged 64 bytes, after 5 s of silence",
		work: work{idle: 4000, idler: load.IdleEcho}, unit: perIdle,
		targets: []target{{main1, "", 20}, against("haproxy", 1)},
	},
	{
		name: "bridge-down", title: "bulk-down with a TLS listener: decrypted and encrypted again",
		service: proxy.Service{ListenTLS: true},
		work:    work{load: load.Down(4), workers: 4}, unit: perGiB, quick: true,
		targets: []target{against("nginx", 0.75)},
	},
	{
		name: "http-small", title: "64 keep-alive connections, GET of 1 KiB, HTTP/1.1 in, HTTPS/1.1 to the backend",
		service: proxy.Service{HTTP: true},
		work:    work{load: load.HTTP(64, 1<<10, load.Requests), workers: 64}, unit: perRequest, quick: true,
		targets: []target{against("nginx", 1.15)},
	},
	{
		name: "http-bulk", title: "8 keep-alive connections, GET of 10 MiB",
		service: proxy.Service{HTTP: true},
		work:    work{load: load.HTTP(8, 10<<20, load.Bytes), workers: 8}, unit: perGiB, quick: true,
		targets: []target{against("nginx", 0.75)},
	},
	{
		name: "http-small-tls", title: "http-small with a TLS listener",
		service: proxy.Service{HTTP: true, ListenTLS: true},
		work:    work{load: load.HTTP(64, 1<<10, load.Requests), workers: 64}, unit: perRequest,
	},
	{
		name: "http-bulk-tls", title: "http-bulk with a TLS listener",
		service: proxy.Service{HTTP: true, ListenTLS: true},
		work:    work{load: load.HTTP(8, 10<<20, load.Bytes), workers: 8}, unit: perGiB,
	},
	{
		name: "http-bulk-up", title: "8 keep-alive connections, POST of 10 MiB, HTTP/1.1 in, HTTPS/1.1 to the backend",
		service: proxy.Service{HTTP: true},
		work:    work{load: load.HTTPUp(8, 10<<20), workers: 8, atBackend: true}, unit: perGiB,
	},
	httpConns(1), httpConns(1000),
	{
		name: "http-idle-1000", title: "1,000 keep-alive clients that have each had an answer, after 5 s of silence",
		service: proxy.Service{HTTP: true},
		work:    work{idle: 1000, idler: load.IdleHTTP}, unit: perIdle,
		targets: []target{{main1, "", 12}},
	},
	{
		name: "http-idle-1000-tls", title: "http-idle-1000 with a TLS listener",
		service: proxy.Service{HTTP: true, ListenTLS: true},
		work:    work{idle: 1000, idler: load.IdleHTTP}, unit: perIdle,
	},
	{
		name: "http2-idle-1000", title: "1,000 HTTP/2 clients that have each had an answer, after 5 s of silence; TLS listener",
		service: proxy.Service{HTTP: true, ListenTLS: true, ClientHTTP2: true},
		work:    work{idle: 1000, idler: load.IdleHTTP2}, unit: perIdle,
	},
	{
		name: "http2-in", title: "8 HTTP/2 connections of 8 requests at a time, GET of 1 KiB, TLS listener, HTTPS/1.1 to the backend",
		service: proxy.Service{HTTP: true, ListenTLS: true, ClientHTTP2: true},
		work:    work{load: load.HTTP2(8, 8, 1<<10), workers: 64}, unit: perRequest,
	},
	{
		name: "http-small-wrk", title: "http-small with wrk as the client, which checks no bytes",
		service: proxy.Service{HTTP: true},
		work:    work{program: load.Wrk(64)}, unit: perRequest,
	},
	{
		name: "http2-in-h2load", title: "http2-in with h2load as the client, which checks no bytes",
		service: proxy.Service{HTTP: true, ListenTLS: true, ClientHTTP2: true},
		work:    work{program: load.H2load(8, 8)}, unit: perRequest,
	},
	{
		name: "http2-out", title: "64 keep-alive connections, GET of 1 KiB, HTTP/1.1 in, HTTP/2 to the backend",
		service: proxy.Service{HTTP: true, UpstreamHTTP2: true},
		work:    work{load: load.HTTP(64, 1<<10, load.Requests), workers: 64}, unit: perRequest,
	},
	{
		name: "http2-both", title: "http2-in with HTTP/2 to the backend too",
		service: proxy.Service{HTTP: true, ListenTLS: true, ClientHTTP2: true, UpstreamHTTP2: true},
		work:    work{load: load.HTTP2(8, 8, 1<<10), workers: 64}, unit: perRequest,
	},
	{
		name: "grpc-unary", title: "8 connections of 8 calls at a time, 64-byte messages, TLS listener",
		service: grpcService, work: work{load: load.GRPCUnary(8, 8, 64), workers: 64}, unit: perCall,
		targets: []target{against("nginx", 1)},
	},
	{
		name: "grpc-stream", title: "8 connections of 8 streams, 64-byte messages there and back, TLS listener",
		service: grpcService, work: work{load: load.GRPCStream(8, 8, 64), workers: 64}, unit: perMessage,
	},
	{
		name: "websocket", title: "64 WebSocket connections, 64-byte messages there and back",
		service: proxy.Service{HTTP: true, WebSocket: true},
		work:    work{load: load.WebSocket(64, 64), workers: 64}, unit: perMessage,
	},
	{
		name: "postgres", title: "8 connections of pgbench in plaintext, its standard transaction; TLS with a client certificate to PostgreSQL",
		service: proxy.Service{Postgres: true},
		work:    work{program: load.Pgbench(8, backend.PostgresUser)}, unit: perTransaction,
		targets: []target{against("stunnel", 0.6)},
	},
	growConns(1), growConns(100), growConns(4000),
	growConfig(10), growConfig(1000), growConfig(10000),
}

var grpcService = proxy.Service{HTTP: true, ListenTLS: true, ClientHTTP2: true, UpstreamHTTP2: true, GRPC: true}

// selectRows returns the rows in a comma-separated list, in the order of rows.
// A name that ends with * matches every row with that prefix. Empty means all.
func selectRows(list string) ([]row, error) {
	if list == "" {
		return rows, nil
	}
	chosen := make([]bool, len(rows))
	for name := range strings.SplitSeq(list, ",") {
		prefix, open := strings.CutSuffix(name, "*")
		found := false
		for i, r := range rows {
			if r.name == name || open && strings.HasPrefix(r.name, prefix) {
				chosen[i], found = true, true
			}
		}
		if !found {
			return nil, unknown("row", name, rowNames())
		}
	}
	var out []row
	for i, r := range rows {
		if chosen[i] {
			out = append(out, r)
		}
	}
	return out, nil
}

func rowNames() []string {
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	return slices.Clip(names)
}
