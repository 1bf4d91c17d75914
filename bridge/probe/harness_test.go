package probe_test

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve accepts connections until the test ends, and waits for its goroutines.
// It returns the address.
func serve(t *testing.T, l net.Listener, handle func(net.Conn)) string {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(time.Minute))
				handle(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveTLS completes the handshake with every client, and reads until it
// disconnects.
func serveTLS(t *testing.T, config *tls.Config) string {
	return serve(t, listen(t), func(c net.Conn) {
		tc := tls.Server(c, config)
		if tc.Handshake() == nil {
			tc.Read(make([]byte, 1))
		}
		tc.Close()
	})
}

// mutual returns compatible settings of both ends, with certificates on both
// sides, for the name upstream.test.
func mutual(t *testing.T, ca *certstest.CA) (*tls.Config, certs.ClientOptions) {
	t.Helper()
	return &tls.Config{
			Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "upstream.test"))},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    ca.Pool(),
			MinVersion:   tls.VersionTLS10,
		}, certs.ClientOptions{
			Certificate: certstest.Certificate(t, ca.Client(t, "bridge")),
			Trust:       []*certs.TrustBundle{ca.Trust(t)},
			ServerName:  "upstream.test",
		}
}

func client(t *testing.T, o certs.ClientOptions) *certs.Client {
	t.Helper()
	c, err := certs.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run probes addr and checks the invariants of every Result.
func run(t *testing.T, addr string, o certs.ClientOptions, change ...func(*probe.Target)) *probe.Result {
	t.Helper()
	target := probe.Target{Network: "tcp", Address: addr, Field: "endpoints[0]", Client: client(t, o)}
	for _, c := range change {
		c(&target)
	}
	return runTarget(t, target)
}

func runTarget(t *testing.T, target probe.Target) *probe.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := probe.Run(ctx, target)
	t.Logf("%s: %s\n  suggestion: %s\n  attempts: %v", r.Reason, r.Explanation, r.Suggestion.Text, r.Attempts)
	if r.Explanation == "" {
		t.Error("no explanation")
	}
	if !r.OK() && r.Suggestion.Text == "" {
		t.Error("no suggestion")
	}
	if s := r.Suggestion; s.Value != "" && !strings.Contains(s.Text, s.Field) {
		t.Errorf("the suggestion's text does not name its field %s: %s", s.Field, s.Text)
	}
	for _, text := range []string{r.Explanation, r.Suggestion.Text, r.Suggestion.Value} {
		if len(text) > 4000 || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.Errorf("a text is too long or not printable: %q", text)
		}
		if strings.Contains(text, "PRIVATE KEY") {
			t.Error("a text holds key material")
		}
	}
	followed(t, target, r)
	return r
}

// want checks the reason of a Result and the facts in its texts.
func want(t *testing.T, r *probe.Result, reason certs.Reason, facts, advice []string) {
	t.Helper()
	if r.Reason != reason {
		t.Errorf("reason %q, want %q", r.Reason, reason)
	}
	for _, f := range facts {
		if !strings.Contains(r.Explanation, f) {
			t.Errorf("the explanation does not name %q: %s", f, r.Explanation)
		}
	}
	for _, a := range advice {
		if !strings.Contains(r.Suggestion.Text, a) {
			t.Errorf("the suggestion does not name %q: %s", a, r.Suggestion.Text)
		}
	}
}
