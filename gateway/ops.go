package gateway

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
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/guard"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
)

// opsServer serves health, metrics and, on loopback only, profiles over plain HTTP
// to operators.
type opsServer struct {
	guard *guard.Listener
	http  *http.Server
}

// Addr returns where the server listens.
func (o *opsServer) Addr() net.Addr { return o.guard.Addr() }

func listenOps(g *Gateway, address string, limits guard.Options) (*opsServer, error) {
	socket, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("ops on %s: %w", address, listeners.Cause(err))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := g.notReady(); why != "" {
			answer(w, http.StatusServiceUnavailable, why)
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", g.metrics.Handler())
	var handler http.Handler = mux
	if socket.Addr().(*net.TCPAddr).IP.IsLoopback() {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		handler = localHost(mux)
	}
	return &opsServer{guard.New(socket, limits), &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      2 * time.Minute, // a profile takes as long as its request says
		IdleTimeout:       time.Minute,
		ConnState: func(c net.Conn, state http.ConnState) {
			if c, ok := c.(*guard.Conn); ok {
				c.Prove(state == http.StateActive) // an idle connection may be evicted
			}
		},
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       log.New(debugWriter{g.log.Named("ops")}, "", 0),
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

func (o *opsServer) serve() error {
	if err := o.http.Serve(o.guard); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (o *opsServer) shutdown(ctx context.Context) {
	if o.http.Shutdown(ctx) != nil {
		o.http.Close() // a scrape or profile did not end in time
	}
	o.guard.Close() // if serve was never called, Shutdown does not know the socket
}

// debugWriter writes net/http's errors about clients to the log.
type debugWriter struct{ log hclog.Logger }

func (w debugWriter) Write(line []byte) (int, error) {
	w.log.Debug("http", "error", string(line))
	return len(line), nil
}
