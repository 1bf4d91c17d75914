package l7

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// An engine is an http.Server for connections that are served under the same
// settings. When a table has others, new connections go to a new engine, and
// the old one ends with its last connection.
type engine struct {
	settings settings
	http     *http.Server

	conns   chan net.Conn
	stop    sync.Once
	stopped chan struct{} // closed when it takes no more connections
}

// engineFor returns the engine for connections with these settings; nil if the
// Server is closing.
func (s *Server) engineFor(st settings) *engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil
	}
	if s.current != nil && s.current.settings == st {
		return s.current
	}
	if s.current != nil {
		s.retireLocked(s.current)
	}
	e := &engine{
		settings: st,
		http:     s.newHTTPServer(st),
		conns:    make(chan net.Conn),
		stopped:  make(chan struct{}),
	}
	s.current = e
	s.engines[e] = true
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		_ = e.http.Serve(e) // always http.ErrServerClosed, or net.ErrClosed from Accept
	}()
	return e
}

func (s *Server) newHTTPServer(st settings) *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: st.headerReadTimeout,
		IdleTimeout:       st.idleTimeout,
		MaxHeaderBytes:    st.maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				s.work.Done() // what take added; of a connection's states these two are the last
			}
		},
		// What goes wrong here is a client's doing, and any client can do it.
		ErrorLog:                     s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is routed like the rest
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 250,
			// A client that vanished keeps no connection: unlike HTTP/1, one
			// with streams has no idle time.
			SendPingTimeout: 30 * time.Second,
			PingTimeout:     15 * time.Second,
		},
	}
}

// retireLocked lets an engine end with its last connection. s.mu is held.
func (s *Server) retireLocked(e *engine) {
	e.Close() // at once, so that nobody hands it another connection
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		_ = e.http.Shutdown(s.ctx) // the error is that s.ctx ended: Server.Shutdown closes the rest
		s.mu.Lock()
		delete(s.engines, e)
		s.mu.Unlock()
	}()
}

// take hands a connection over; false if the engine takes none any more. Its
// goroutine is work of s: a caller that is work itself calls this.
func (e *engine) take(s *Server, c net.Conn) bool {
	s.work.Add(1)
	select {
	case e.conns <- c:
		return true
	case <-e.stopped:
		s.work.Done()
		return false
	}
}

// Accept, Close and Addr make an engine the net.Listener of its http.Server.

func (e *engine) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.stopped:
		return nil, net.ErrClosed
	}
}

func (e *engine) Close() error {
	e.stop.Do(func() { close(e.stopped) })
	return nil
}

func (e *engine) Addr() net.Addr { return engineAddr{} }

// engineAddr is the address of a listener that has none: its connections come
// from others.
type engineAddr struct{}

func (engineAddr) Network() string { return "l7" }
func (engineAddr) String() string  { return "l7" }
