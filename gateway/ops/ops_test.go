package ops

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/gateway/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen returns a server that is not ready, and its URL.
func listen(t *testing.T, limits guard.Options) (*Server, string) {
	t.Helper()
	s, err := Listen(Options{
		Address: "127.0.0.1:0", Limits: limits, Logger: hclog.NewNullLogger(),
		Ready:   func() (string, bool) { return "not ready: no listener", false },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics") }),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, "http://" + s.Addr().String()
}

func serve(t *testing.T, s *Server) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestPathsAnswer(t *testing.T) {
	s, url := listen(t, guard.Options{Connections: 4})
	serve(t, s)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]string{
		"/healthz": "200 ok\n", "/readyz": "503 not ready: no listener\n", "/metrics": "200 metrics", "/other": "404 404 page not found\n",
	} {
		resp, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := resp.Status[:3] + " " + string(body); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
}

// A connection that sends no complete request is closed.
func TestSilentConnectionIsClosed(t *testing.T) {
	s, _ := listen(t, guard.Options{Connections: 4})
	if s.http.ReadHeaderTimeout <= 0 || s.http.ReadHeaderTimeout > 10*time.Second || s.http.IdleTimeout <= 0 {
		t.Errorf("the deadlines are %v for a header and %v without a request", s.http.ReadHeaderTimeout, s.http.IdleTimeout)
	}
	s.http.ReadHeaderTimeout = 20 * time.Millisecond
	serve(t, s)
	for _, sent := range []string{"", "GET /healthz HTTP/1.1\r\nHost: "} {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %q the connection is still open", sent)
		}
	}
}

func TestAddressInUseIsReported(t *testing.T) {
	s, _ := listen(t, guard.Options{Connections: 1})
	defer s.Shutdown(context.Background())
	_, err := Listen(Options{Address: s.Addr().String(), Logger: hclog.NewNullLogger()})
	if err == nil || !strings.HasSuffix(err.Error(), ": address already in use") || strings.Count(err.Error(), s.Addr().String()) != 1 {
		t.Errorf("%v", err)
	}
}
