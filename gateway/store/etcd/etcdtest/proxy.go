package etcdtest

import (
	"net"
	"sync"
	"testing"
)

// A Proxy carries TCP connections to one address, until Silence makes it drop their data.
type Proxy struct {
	l      net.Listener
	target string
	wait   sync.WaitGroup

	mu     sync.Mutex
	silent bool // carry nothing; guarded by mu
	closed bool
	open   []net.Conn
}

// NewProxy starts a proxy. It stops with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{l: l, target: target}
	p.wait.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Address returns the address of the proxy.
func (p *Proxy) Address() string { return p.l.Addr().String() }

// Silence makes all open and all new connections drop their data. They stay open. Heal
// does not restore connections that were silenced.
func (p *Proxy) Silence() { p.set(true) }

// Heal makes new connections work.
func (p *Proxy) Heal() { p.set(false) }

func (p *Proxy) set(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = silent
}

func (p *Proxy) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

// keep registers a connection to be closed with the proxy. It returns false if
// the proxy is closed.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, c)
	return !p.closed
}

func (p *Proxy) accept() {
	for {
		from, err := p.l.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.target)
		if err != nil {
			from.Close()
			continue
		}
		if !p.keep(from) || !p.keep(to) {
			from.Close()
			to.Close()
			return
		}
		p.wait.Go(func() { p.carry(from, to) })
		p.wait.Go(func() { p.carry(to, from) })
	}
}

// carry copies data until a side closes. Once the proxy has been silent, the connection
// stays silent.
func (p *Proxy) carry(to, from net.Conn) {
	silent := false
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if silent = silent || p.isSilent(); err == nil && !silent {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			if !silent {
				to.Close()
			}
			return
		}
	}
}

func (p *Proxy) close() {
	p.l.Close()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.wait.Wait()
}
