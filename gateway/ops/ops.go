package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/guard"
)

// Options configure a Server. All fields but Listen are required.
type Options struct {
	Address string                // in the form host:port
	Limits  guard.Options         // the limits of connections
	Ready   func() (string, bool) // returns the body of /readyz, and whether the gateway is ready
	Metrics http.Handler          // the handler of /metrics
	Logger  hclog.Logger

	// Listen returns the socket for Address. Nil: a new one.
	Listen func(address string) (net.Listener, error)
}

// A Server serves health, metrics and, on loopback only, profiles over plain HTTP.
type Server struct {
	guard *guard.Listener
	http  *http.Server
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.guard.Addr() }

// Connections returns how many connections are open.
func (s *Server) Connections() int { return s.guard.Open() }

// Listen binds the server's address. The caller must call Shutdown, even if it does
// not call Serve.
func Listen(o Options) (*Server, error) {
	if o.Listen == nil {
		o.Listen = func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	socket, err := o.Listen(o.Address)
	if err != nil {
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			err = errno // net's text would repeat the address
		}
		return nil, fmt.Errorf("ops on %s: %w", o.Address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		text, ready := o.Ready()
		if !ready {
			answer(w, http.StatusServiceUnavailable, text)
			return
		}
		answer(w, http.StatusOK, text)
	})
	mux.Handle("GET /metrics", o.Metrics)
	var handler http.Handler = mux
	if socket.Addr().(*net.TCPAddr).IP.IsLoopback() {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		handler = localHost(mux)
	}
	return &Server{guard.New(socket, o.Limits), &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      2 * time.Minute, // a profile takes as long as its request says
		IdleTimeout:       time.Minute,
		ConnState: func(c net.Conn, state http.ConnState) {
			if c, ok := c.(*guard.Conn); ok {
				c.SetProven(state == http.StateActive) // an idle connection may be evicted
			}
		},
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       log.New(debugWriter{o.Logger}, "", 0),
	}}, nil
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	io.WriteString(w, text+"\n")
}

// localHost rejects requests whose Host is a name other than localhost. Otherwise a
// page in a browser on this machine could reach loopback through its own name, if
// that resolves to loopback (DNS rebinding).
func localHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
			answer(w, http.StatusForbidden, "the host must be an IP address or localhost")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Serve serves until Shutdown is called.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.guard); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown closes the address, waits for requests until ctx ends, and then closes
// their connections.
func (s *Server) Shutdown(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		s.http.Close() // a scrape or profile did not end in time
	}
	s.guard.Close() // if Serve was never called, Shutdown does not know the socket
}

// debugWriter writes net/http's errors about clients to the log.
type debugWriter struct{ log hclog.Logger }

func (w debugWriter) Write(line []byte) (int, error) {
	w.log.Debug("http", "error", string(line))
	return len(line), nil
}
