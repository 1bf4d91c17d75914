// DrainConnections lets work finish: an HTTP connection gets no further request
// and closes after its current responses; a stream continues until the period
// ends. max_age retires pooled connections without a call.

package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestDrainedConnectionsFinishWhatTheyCarry(t *testing.T) {
	t.Parallel()
	for _, protocol := range []adminv1.HttpProtocol{adminv1.HttpProtocol_HTTP_PROTOCOL_1_1, adminv1.HttpProtocol_HTTP_PROTOCOL_2} {
		t.Run(protocol.String(), func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			arrived, release := make(chan struct{}), make(chan struct{})
			web := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					close(arrived)
					<-release
				}
				_, _ = io.WriteString(w, r.RemoteAddr)
			})
			raw := serveConns(t, a.serverConfig(t), echo)
			g := startGateway(t)
			up := upstream("web", a.settings(), web)
			up.Http = &adminv1.UpstreamHttp{Protocol: protocol}
			g.apply(
				trustBundle("ca", a.ca), certificate("client", a.client),
				up, listener("web", protocolHTTP, "web"), upstream("raw", a.settings(), raw), listener("raw", protocolTCP, "raw"),
			)
			base := "http://" + g.address("web")
			fp := fingerprint(a.client)
			var slow string
			finished := make(chan error, 1)
			go func() {
				code, body, err := tryGet(t, oneRequestClient, base+"/slow")
				if slow = body; err == nil && code != http.StatusOK {
					t.Errorf("the request in flight: %d %q", code, body)
				}
				finished <- err
			}()
			<-arrived
			stream := dial(t, g.address("raw"))
			if err := pingPong(stream, "hello"); err != nil {
				t.Fatal(err)
			}

			drain := func(name string, period time.Duration) {
				t.Helper()
				resp, err := g.diagnostics.DrainConnections(longContext(t), &adminv1.DrainConnectionsRequest{Upstream: name, Sha256Fingerprint: fp, Period: durationpb.New(period)})
				if err != nil || resp.GetConnections() != 1 {
					t.Errorf("%s: drained %d, %v", name, resp.GetConnections(), err)
				}
			}
			drain("web", time.Hour)
			drain("raw", time.Hour)
			// A new request uses another connection.
			_, other := get(t, base+"/")
			if got := g.open("web")[fp]; got != 2 {
				t.Errorf("%d connections with a request in flight on a drained one, want 2", got)
			}
			if err := pingPong(stream, "in the period"); err != nil {
				t.Errorf("the stream: %v", err)
			}
			close(release)
			if err := <-finished; err != nil {
				t.Errorf("the request in flight: %v", err)
			}
			if slow == other {
				t.Errorf("both requests were carried by %s", slow)
			}
			eventually(t, "the drained connection is closed", func() bool { return g.open("web")[fp] == 1 })
			if _, again := get(t, base+"/"); again != other {
				t.Errorf("the next request was carried by %s, want %s", again, other)
			}

			drain("raw", time.Millisecond)
			if n, err := stream.Read(make([]byte, 1)); err == nil || n != 0 || strings.Contains(err.Error(), "timeout") {
				t.Errorf("after the period the stream is read as %d bytes, %v", n, err)
			}
			eventually(t, "the stream is gone", func() bool { return len(g.open("raw")) == 0 })
		})
	}
}

func TestPooledConnectionsHaveAnAge(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	web := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-release
		}
		_, _ = io.WriteString(w, r.RemoteAddr)
	})
	g := startGateway(t)
	aged, ageless := upstream("aged", a.settings(), web), upstream("ageless", a.settings(), web)
	// The idle timeout is an hour, so only max_age can end a connection.
	aged.Pool = &adminv1.Pool{MaxAge: durationpb.New(300 * time.Millisecond), IdleTimeout: durationpb.New(time.Hour)}
	ageless.Pool = &adminv1.Pool{IdleTimeout: durationpb.New(time.Hour)}
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client),
		aged, listener("aged", protocolHTTP, "aged"), ageless, listener("ageless", protocolHTTP, "ageless"),
	)
	_, keeps := get(t, "http://"+g.address("ageless")+"/")
	base := "http://" + g.address("aged")
	_, first := get(t, base+"/")
	eventually(t, "the idle connection is closed for its age", func() bool { return g.upstream("aged").GetEndpoints()[0].GetConnections() == 0 })
	if _, second := get(t, base+"/"); second == first {
		t.Errorf("%s was used again", first)
	}
	// max_age does not interrupt a request.
	finished := make(chan string, 1)
	go func() {
		_, body, err := tryGet(t, oneRequestClient, base+"/slow")
		if err != nil {
			t.Error(err)
		}
		finished <- body
	}()
	<-arrived
	eventually(t, "requests are carried by another connection", func() bool {
		get(t, base+"/")
		return g.open("aged")[fingerprint(a.client)] > 1
	})
	close(release)
	if body := <-finished; body == "" {
		t.Error("the request in flight was not answered")
	}
	if _, again := get(t, "http://"+g.address("ageless")+"/"); again != keeps {
		t.Errorf("without an age the connection is %s, and was %s", again, keeps)
	}
}
