package upstream_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/egress"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// Traffic, both kinds of health checks and warm connections go through the proxy, and
// start TLS with the endpoint behind it.
func TestEveryConnectionGoesThroughTheProxy(t *testing.T) {
	ca := certstest.NewCA(t)
	server := listen(t, "tcp", startsTLS("S", echoTLS(&tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}}))).String()
	var tunnels atomic.Int64
	proxy := listen(t, "tcp", func(c net.Conn) {
		r := bufio.NewReader(c)
		request, err := http.ReadRequest(r)
		if err != nil || request.Method != http.MethodConnect || request.Host != "db.internal:5432" {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			return
		}
		tunnels.Add(1)
		out, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer out.Close()
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.Copy(out, r)
			out.Close()
		}()
		io.Copy(c, out)
		c.Close()
		<-done
	}).String()
	options := func(address string, warm int) upstream.Options {
		return upstream.Options{Warm: warm, Starttls: starttls.Postgres, Connect: (&egress.Proxy{Address: proxy}).Dial, Endpoints: []upstream.EndpointOptions{{
			Network: "tcp", Address: address, Stream: newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}}),
		}}}
	}
	u := upstream.New(options("db.internal:5432", 0))
	conn, e, err := u.Dial(t.Context(), upstream.Stream)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn)
	conn.Close()
	if err := e.CheckHandshake(t.Context(), upstream.Stream, ""); err != nil {
		t.Error(err)
	}
	checked, err := e.CheckDial(t.Context(), upstream.Stream, "")
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, checked)
	checked.Close()
	warmed := warm(t, options("db.internal:5432", 1))
	ready(t, warmed, 1)
	if n := tunnels.Load(); n != 4 {
		t.Errorf("%d tunnels, want 4", n)
	}

	refused := upstream.New(options("other.internal:5432", 0))
	_, _, err = refused.Dial(t.Context(), upstream.Stream)
	if de, ok := errors.AsType[*upstream.DialError](err); !ok || de.Reason != certs.ReasonEgressProxyRefused || de.Phase != "tcp" || !strings.Contains(err.Error(), "400 Bad Request") {
		t.Errorf("refused: %v", err)
	}
	if s := only(t, refused); s.Open != 0 {
		t.Errorf("%d connections are open", s.Open)
	}
}
