package splice

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A costRow is a kind of input that a peer may send through a splice.
type costRow struct {
	name     string
	secure   bool // the sender speaks TLS
	upstream bool // the sender is the upstream, not the client
	into     bool // the receiver speaks TLS

	send func(t *testing.T, w *wire) // produces the input

	single       bool // each write is carried before the next
	stops        bool // the receiver does not read
	readsNothing bool // the sender does not read
	halfClose    bool // the receiver has ended its stream
	bound        alloctest.Bound
}

// A wire collects what a sender writes. Each element is one write.
type wire struct {
	net.Conn
	writes [][]byte
	size   int
	gather bool // the next Write appends to the last element
	tls    *splicetest.Hostile
}

func (w *wire) Write(p []byte) (int, error) {
	if w.size += len(p); w.gather && len(w.writes) > 0 {
		last := &w.writes[len(w.writes)-1]
		*last = append(*last, p...)
	} else {
		w.writes = append(w.writes, bytes.Clone(p))
	}
	return len(p), nil
}

// times calls f n times. All its writes are sent at once.
func (w *wire) times(t *testing.T, n int, f func() error) {
	for range n {
		if err := f(); err != nil {
			t.Fatal(err)
		}
		w.gather = true
	}
	w.gather = false
}

// data sends a record of n bytes.
func (w *wire) data(n int) error { return w.tls.Send(splicetest.ApplicationRecord, make([]byte, n)) }

// flood sends records of a kind of which crypto/tls accepts only a few in a row. It
// sends them alone, or with a one-byte data record after each group of between
// records.
func flood(name string, alone bool, n, between int) func(t *testing.T, w *wire) {
	return func(t *testing.T, w *wire) {
		w.times(t, n, func() error {
			for range between {
				if err := splicetest.Floods[name](w.tls); err != nil {
					return err
				}
			}
			if alone {
				return nil
			}
			return w.data(1)
		})
	}
}

const (
	eachIsACall = "each write is a wake-up, a read and a write of its own, and the test's own write is in the sum"
)

var costRows = []costRow{
	{name: "plaintext at once", send: func(t *testing.T, w *wire) { w.times(t, 64, func() error { return write(w, 16<<10) }) }},
	{name: "plaintext, byte by byte", single: true, bound: alloctest.Bound{CPU: 100 * time.Microsecond, Reason: eachIsACall}, send: func(t *testing.T, w *wire) {
		for range 500 {
			_ = write(w, 1)
		}
	}},
	{name: "plaintext, to TLS, byte by byte", into: true, single: true, bound: alloctest.Bound{CPU: 100 * time.Microsecond, Reason: eachIsACall}, send: func(t *testing.T, w *wire) {
		for range 500 {
			_ = write(w, 1)
		}
	}},
	{name: "whole records", secure: true, send: func(t *testing.T, w *wire) { w.times(t, 64, func() error { return w.data(16 << 10) }) }},
	{name: "whole records to TLS", secure: true, into: true, send: func(t *testing.T, w *wire) { w.times(t, 64, func() error { return w.data(16 << 10) }) }},
	{name: "records of a byte", secure: true, send: func(t *testing.T, w *wire) { w.times(t, 20_000, func() error { return w.data(1) }) }},
	{name: "records of a byte, one at a time", secure: true, single: true, bound: alloctest.Bound{CPU: 5 * time.Microsecond, Reason: eachIsACall}, send: func(t *testing.T, w *wire) {
		for range 500 {
			_ = w.data(1)
		}
	}},
	{name: "records of a byte from the upstream to TLS", secure: true, upstream: true, into: true, send: func(t *testing.T, w *wire) { w.times(t, 20_000, func() error { return w.data(1) }) }},
	{name: "empty records", secure: true, send: flood("empty records", true, 20_000, 1)},
	{name: "empty records between records of a byte", secure: true, send: flood("empty records", false, 2000, 10)},
	{name: "KeyUpdates", secure: true, send: flood("key updates that request one", true, 2000, 1)},
	{name: "KeyUpdates between records of a byte", secure: true, send: flood("key updates", false, 5000, 1)},
	{name: "KeyUpdates that request a KeyUpdate, between records of a byte", secure: true, send: flood("key updates that request one", false, 5000, 1)},
	{name: "KeyUpdates that request a KeyUpdate, from a sender that reads nothing", secure: true, readsNothing: true, send: flood("key updates that request one", false, 10_000, 1)},
	{name: "session tickets", secure: true, upstream: true, send: flood("session tickets", true, 20_000, 1)},
	{name: "session tickets between records of a byte", secure: true, upstream: true, send: flood("session tickets", false, 5000, 1)},
	{name: "a handshake message that never ends", secure: true, send: flood("a handshake message of 16 MiB", true, 60, 1)},
	{name: "warnings", secure: true, send: flood("warnings", true, 20_000, 1)},
	{name: "records of a byte after the receiver's half-close", secure: true, halfClose: true, send: func(t *testing.T, w *wire) { w.times(t, 20_000, func() error { return w.data(1) }) }},
	{name: "plaintext to a reader that stops", stops: true, send: func(t *testing.T, w *wire) { w.times(t, 1024, func() error { return write(w, 16<<10) }) }},
	{name: "small records to a reader that stops", secure: true, stops: true, send: func(t *testing.T, w *wire) { w.times(t, 12_000, func() error { return w.data(1000) }) }},
}

func write(w *wire, n int) error {
	_, err := w.Write(make([]byte, n))
	return err
}

// A costTrial is one run of a row.
type costTrial struct {
	splice   *Splice
	from, to *side // the sides of the sender and the receiver
	d        *direction
	input    *wire
	sent     int         // writes so far
	far      [2]net.Conn // the peers' ends: the sender's and the receiver's
	tasks    sync.WaitGroup
}

// tcpPair returns both ends of a TCP connection.
func tcpPair(t *testing.T) (near *socket.Socket, far net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if far, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return socket.New(conn, nil), far
}

// newCostTrial creates a splice without an Engine's loops, so that the test runs every
// turn itself.
func newCostTrial(t *testing.T, e *Engine, ca *certstest.CA, row *costRow) *costTrial {
	x := &costTrial{input: new(wire)}
	// secure makes a handshake in which the near end is the server for a client, and the
	// client for an upstream.
	secure := func(sock *socket.Socket, far net.Conn, isClient bool) (near *tls.Conn, p *splicetest.Peer, s *splicetest.Secrets) {
		client := &tls.Config{ServerName: "x.test", RootCAs: ca.Pool(), DynamicRecordSizingDisabled: true}
		server := &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "x.test"))}, DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true}
		if isClient {
			client, s = splicetest.HostileConfig(client)
			near, p = tls.Server(sock, server), splicetest.NewPeer(far, splicetest.Client(client))
		} else {
			server, s = splicetest.HostileConfig(server)
			near, p = tls.Client(sock, client), splicetest.NewPeer(far, splicetest.Server(server))
		}
		socket.MeterRecords(sock)
		shaken := make(chan error, 1)
		go func() { shaken <- p.Handshake() }()
		if err := errors.Join(near.Handshake(), <-shaken); err != nil {
			t.Fatal(err)
		}
		return near, p, s
	}
	var near [2]net.Conn // the near ends: the sender's and the receiver's
	for i := range near {
		sock, far := tcpPair(t)
		near[i], x.far[i] = sock, far
		isClient := (i == 0) != row.upstream
		switch {
		case i == 0 && row.secure:
			conn, p, secrets := secure(sock, far, isClient)
			x.input.Conn = far
			p.Raw.Conn = x.input
			near[i], x.input.tls = conn, p.Hostile(t, secrets, isClient)
		case i == 1 && row.into:
			near[i], _, _ = secure(sock, far, isClient)
		}
	}
	row.send(t, x.input)

	client, upstream := near[0], near[1]
	if row.upstream {
		client, upstream = upstream, client
	}
	s := e.newSplice(client, upstream, Options{Idle: time.Hour, Linger: time.Hour})
	if err := errors.Join(s.client.takeOver(client), s.upstream.takeOver(upstream)); err != nil {
		t.Fatal(err)
	}
	s.watch.start(e.now(), func() {})
	x.splice, x.d, x.from, x.to = s, &s.toUpstream, &s.client, &s.upstream
	if row.upstream {
		x.d, x.from, x.to = &s.toClient, &s.upstream, &s.client
	}

	if row.halfClose {
		_ = x.far[1].(*net.TCPConn).CloseWrite()
	}
	if !row.readsNothing {
		x.tasks.Go(func() { _, _ = io.Copy(io.Discard, x.far[0]) }) // discards answers, such as KeyUpdates
	}
	if !row.stops {
		x.tasks.Go(func() { _, _ = io.Copy(io.Discard, x.far[1]) })
	}
	if !row.single {
		x.tasks.Go(func() {
			for x.sendNext() {
			}
		})
	}
	return x
}

// sendNext sends the next write, or the end of the stream.
func (x *costTrial) sendNext() (more bool) {
	if x.sent == len(x.input.writes) {
		_ = x.far[0].(*net.TCPConn).CloseWrite()
		return false
	}
	x.sent++
	_, err := x.far[0].Write(x.input.writes[x.sent-1])
	return err == nil
}

// run runs turns until everything was delivered, the splice has ended, or the receiver's
// queue is full.
func (x *costTrial) run(t *testing.T, w *workspace, row *costRow) {
	s := x.splice
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && !s.closing && !x.d.done {
		if row.stops && !x.to.queue.empty() || x.from.queue.len() > maxQueued {
			break
		}
		if row.single {
			x.sendNext()
		}
		fds := []unix.PollFd{{Fd: int32(s.client.fd), Events: unix.POLLIN}, {Fd: int32(s.upstream.fd), Events: unix.POLLIN}}
		for i, side := range s.sides() {
			if d := s.directionFrom(side); d.eof || d.done {
				fds[i].Events = 0
			}
			if !side.queue.empty() {
				fds[i].Events |= unix.POLLOUT
			}
		}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		for i, side := range s.sides() {
			if fds[i].Revents&^unix.POLLOUT != 0 {
				side.readable = true
			}
		}
		w.now = s.engine.now()
		for s.turn(w) {
		}
	}
}

// directionFrom returns the direction that a side is the source of.
func (s *Splice) directionFrom(x *side) *direction {
	if x == &s.client {
		return &s.toUpstream
	}
	return &s.toClient
}

func (x *costTrial) end() {
	x.splice.Cut(Shutdown, nil)
	for _, c := range x.far {
		c.Close()
	}
	x.tasks.Wait()
	x.splice.engine.waiting.Wait()
}

// Any input that a peer sends through a splice costs memory and CPU in proportion to its
// bytes.
func TestCostOfSplicedBytes(t *testing.T) {
	ca := certstest.NewCA(t)
	for i := range costRows {
		row := &costRows[i]
		t.Run(row.name, func(t *testing.T) {
			e := newEngine()
			w := newWorkspace(chunk) // reused, as the loops reuse theirs
			var trials []*costTrial
			for range 3 { // one trial for each call of f by WantCost
				trials = append(trials, newCostTrial(t, e, ca, row))
			}
			defer func() {
				for _, x := range trials {
					x.end()
				}
			}()
			n := 0
			alloctest.WantCost(t, trials[0].input.size, row.bound, func() {
				x := trials[n]
				x.run(t, w, row)
				for _, side := range x.splice.sides() {
					if side.queue.buf != nil && len(*side.queue.buf) > 2*maxQueued {
						t.Errorf("%d bytes are held for a reader that stopped", len(*side.queue.buf))
					}
				}
				n++
			})
		})
	}
}
