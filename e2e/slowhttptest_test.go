// The gateway closes the connections of slowhttptest's slow clients: some send
// a header or a body byte by byte, and some stop reading.

package e2e

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestSlowClientsAreClosed(t *testing.T) {
	t.Parallel()
	slowhttptest := need(t, "slowhttptest")
	a := newAuthority(t)
	big := bytes.Repeat([]byte("x"), 8<<20)
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client),
		upstream("web", a.settings(), serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				_, _ = r.Body.Read(make([]byte, 1<<20))
			}
			_, _ = w.Write(big)
		})))
	for name, flags := range map[string][]string{
		"headers": {"-H", "-i", "1", "-x", "8"},
		"body":    {"-B", "-i", "1", "-x", "8", "-s", "100000"},
		"reading": {"-X", "-n", "1", "-z", "16", "-w", "512", "-y", "1024"},
	} {
		t.Run(name, func(t *testing.T) {
			slow := listener(name, protocolHTTP, "web")
			slow.Timeouts = &adminv1.ListenerTimeouts{HeaderRead: durationpb.New(2 * time.Second), Idle: durationpb.New(2 * time.Second)}
			g.apply(slow)
			client := start(t, slowhttptest, append(flags, "-c", "50", "-r", "50", "-l", "80", "-p", "80", "-u", "http://"+g.address(name)+"/")...)
			eventually(t, "every connection was closed", func() bool {
				l := g.listener(name)
				return l.GetAccepted() > 50 && l.GetConnections() == 0 // including the probe's connection
			})
			if name == "reading" {
				return // the test itself would run for an hour
			}
			if code := client.wait(); code != 0 || !client.out.contains("No open connections left") {
				t.Errorf("slowhttptest: exit code %d\n%s", code, tail(client.out.String()))
			}
		})
	}
}
