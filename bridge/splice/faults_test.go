package splice_test

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A fault is a kind of failure of a peer.
type fault int

const (
	ends   fault = iota // the peer ends its stream, beneath TLS
	resets              // the peer resets the connection
	stalls              // the peer stops, and then continues
	dies                // the peer stops for good
)

func (f fault) String() string { return [...]string{"ends", "resets", "stalls", "dies"}[f] }

var errFault = errors.New("the fault of this test")

// A faulty is a connection with a fault after a number of bytes written or read.
type faulty struct {
	*net.TCPConn
	fault          fault
	write, read    int // bytes until the fault; negative: no fault
	wrote          int // bytes written so far
	begun, resumes chan struct{}
}

func (c *faulty) happen() error {
	select {
	case <-c.begun: // the fault has already happened
	default:
		close(c.begun)
	}
	switch c.fault {
	case ends:
		c.CloseWrite()
	case resets:
		c.SetLinger(0)
		c.Close()
	case stalls:
		<-c.resumes
		return nil
	}
	return errFault
}

func (c *faulty) Write(p []byte) (n int, err error) {
	if c.write >= 0 && len(p) > c.write {
		n, _ = c.TCPConn.Write(p[:c.write])
		c.wrote += n
		p, c.write = p[c.write:], 0
		if err := c.happen(); err != nil {
			return n, err
		}
		c.write = -1
	}
	m, err := c.TCPConn.Write(p)
	c.wrote += m
	if c.write > 0 {
		c.write -= m
	}
	return n + m, err
}

func (c *faulty) Read(p []byte) (int, error) {
	if c.read == 0 {
		if err := c.happen(); err != nil {
			return 0, err
		}
		c.read = -1
	}
	if c.read > 0 {
		p = p[:min(len(p), c.read)]
	}
	n, err := c.TCPConn.Read(p)
	if c.read > 0 {
		c.read -= n
	}
	return n, err
}

// message is sent in small records and in large ones.
func message() (parts [][]byte) {
	for i := range 4 {
		parts = append(parts, bytes.Repeat([]byte{byte('a' + i)}, 100))
	}
	return append(parts, bytes.Repeat([]byte("0123456789abcde\n"), 2500))
}

// A trial is one message through a splice with a faulty peer.
type trial struct {
	secure, down bool // the faulty peer speaks TLS; the faulty peer is the upstream
	fault        fault
	write, read  int
}

// run sends a message both ways. It returns what the healthy peer received and how its
// stream ended, whether everything was sent to it, and how much the faulty peer wrote.
func (x trial) run(t *testing.T, e *splice.Engine, ca *certstest.CA) (got []byte, whole bool, wrote int, end error) {
	bad, good := connect(t, "tcp"), connect(t, "tcp")
	wire := &faulty{TCPConn: bad.far.(*net.TCPConn), fault: x.fault, write: -1, read: -1, begun: make(chan struct{}), resumes: make(chan struct{})}
	bad.far = wire
	var badNear, peer net.Conn = bad.near, wire
	if x.secure {
		badNear, peer = bad.secure(t, ca, tls.VersionTLS13)
	}
	wire.write, wire.read, wire.wrote = x.write, x.read, 0

	client, upstream := badNear, net.Conn(good.near)
	if x.down {
		client, upstream = upstream, client
	}
	s, results := start(e, client, upstream, splice.Options{})
	sent, read := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(io.Discard, peer)
	}()
	go func() {
		for _, p := range message() {
			if _, err := peer.Write(p); err != nil {
				sent <- false
				return
			}
		}
		sent <- peer.(halfCloser).CloseWrite() == nil
	}()
	goodSent := make(chan error, 1)
	go func() {
		var failed error
		for _, p := range message() {
			if _, err := good.far.Write(p); err != nil {
				failed = err
			}
		}
		goodSent <- cmp.Or(failed, good.far.(halfCloser).CloseWrite())
	}()
	go func() {
		select {
		case <-wire.begun:
		case <-time.After(time.Minute):
		}
		switch x.fault {
		case stalls:
			close(wire.resumes)
		case dies:
			s.Cut(splice.Idle, nil)
		}
	}()
	got, end = io.ReadAll(good.far)
	if end == nil {
		end = <-goodSent // the kernel reports a reset only once
	}
	select {
	case whole = <-sent:
	case <-time.After(time.Minute):
		t.Fatal("the faulty peer does not end")
	}
	if x.fault != stalls { // otherwise both have ended their streams
		wire.Close()
	}
	wait(t, results)
	wire.Close()
	<-read
	select {
	case <-wire.begun:
	default:
		close(wire.begun)
	}
	return got, whole, wire.wrote, end
}

// For each fault at each position, the splice ends once, and no incomplete stream
// looks complete to the healthy peer.
func TestFaultsAtEachPosition(t *testing.T) {
	ca := certstest.NewCA(t)
	want := bytes.Join(message(), nil)
	engines(t, func(t *testing.T, e *splice.Engine) {
		var all sync.WaitGroup
		for _, secure := range []bool{false, true} {
			for _, down := range []bool{false, true} {
				_, _, wrote, _ := trial{secure: secure, down: down, write: -1, read: -1}.run(t, e, ca)
				for f := ends; f <= dies; f++ {
					all.Go(func() {
						for at := 0; at < wrote; at += step(at) {
							x := trial{secure: secure, down: down, fault: f, write: at, read: -1}
							got, whole, _, end := x.run(t, e, ca)
							x.check(t, "write", at, got, want, end, whole)
							x.write, x.read = -1, at
							got, whole, _, end = x.run(t, e, ca)
							x.check(t, "read", at, got, want, end, whole)
						}
					})
				}
			}
		}
		all.Wait()
	})
}

// step returns a small step within small records, and a large step within large
// ones.
func step(at int) int {
	switch {
	case testing.Short():
		return 4001
	case at < 520:
		return 97
	}
	return 9001
}

func (x trial) check(t *testing.T, operation string, at int, got, want []byte, end error, whole bool) {
	t.Helper()
	name := fmt.Sprintf("TLS %v, down %v: %s at %s %d", x.secure, x.down, x.fault, operation, at)
	if !bytes.HasPrefix(want, got) {
		t.Errorf("%s: what arrived was not sent", name)
	}
	if end != nil || len(got) == len(want) {
		return
	}
	// A plaintext stream that ends looks complete, to the gateway too.
	if x.secure || x.fault != ends {
		t.Errorf("%s: %d of %d bytes look whole (the peer sent all: %v)", name, len(got), len(want), whole)
	}
}
