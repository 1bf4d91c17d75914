package faulttest

import (
	"net"
	"slices"
	"sync"
)

// An Injector injects a fault into the first connection that it wraps, and keeps a
// list of all wrapped connections. Its methods may be called concurrently.
type Injector struct {
	mu    sync.Mutex
	fault Fault
	conns []*Conn
}

// NewInjector returns an Injector of f.
func NewInjector(f Fault) *Injector { return &Injector{fault: f} }

// Wrap returns a Conn over nc, which it owns.
func (i *Injector) Wrap(nc net.Conn) *Conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := Wrap(nc, i.fault)
	i.fault = Fault{}
	i.conns = append(i.conns, c)
	return c
}

// Conns returns the connections so far.
func (i *Injector) Conns() []*Conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.conns)
}

// Open returns the number of connections on which Close was not called.
func (i *Injector) Open() (n int) {
	for _, c := range i.Conns() {
		if !c.Closed() {
			n++
		}
	}
	return n
}

// Listener returns a listener that wraps the connections of ln.
func (i *Injector) Listener(ln net.Listener) net.Listener { return faultyListener{ln, i} }

type faultyListener struct {
	net.Listener
	injector *Injector
}

func (l faultyListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.injector.Wrap(nc), nil
}
