package gateway

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Each of the gateway's own servers limits the number of silent connections, so
// that they neither keep out active clients nor fill the log.
func TestIdleConnectionsDoNotBlockOtherClients(t *testing.T) {
	g := start(t, "")
	begun := time.Now()
	for n := range 600 { // more than the limit, from several addresses
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+n%100))}}
		if c, err := d.Dial("tcp", g.OpsAddress()); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	if code, _ := get(t, "http://"+g.OpsAddress()+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d", code)
	}
	limits := g.ownLimits(g.Gateway.log)
	if open := g.ops.Connections(); open > limits.Connections {
		t.Errorf("%d connections are open, of %d", open, limits.Connections)
	}
	if n := strings.Count(g.log.String(), "the server is at its connection limit"); n == 0 || n > 1+int(time.Since(begun)/(10*time.Second)) { // a line every 10 s
		t.Errorf("%d log lines", n)
	}
	// The gateway reserves descriptors for these connections, so that they take
	// none from traffic.
	if aside := 2 * limits.Connections; g.descriptors.Others() < aside {
		t.Errorf("%d descriptors are kept from traffic, want %d at least", g.descriptors.Others(), aside)
	}
}

func TestReadinessRequiresTheConfiguredConditions(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir, kept := "", filepath.Join(t.TempDir(), "data")
	for _, step := range []struct {
		requires string
		want     string
		then     func(*testGateway)
	}{
		{"restored", "ready", nil},
		{"revision", "not ready: nothing was applied yet", nil},
		{"restored", "ready", func(*testGateway) { dir = kept }},
		{"listeners", "ready", func(g *testGateway) {
			g.put(bare("up", "127.0.0.1:0"), &adminv1.Listener{Name: "down", Address: sockettest.Host() + ":0", Protocol: adminv1.Protocol_PROTOCOL_TCP})
			address := g.address("down")
			g.apply(store.Edit{Deletes: deletes("down")})
			g.put(bare("down", address))
			if err := g.stop(); err != nil {
				t.Error(err)
			}
			if taken, err = net.Listen("tcp", address); err != nil {
				t.Fatal(err)
			}
		}},
		{"restored", "ready", nil}, // the status reports the listener as down
		{"revision", "ready", nil},
		{"listeners", "not ready: 1 listener is down: down", nil},
	} {
		t.Run(step.requires+" "+step.want, func(t *testing.T) {
			g := start(t, dir, func(o *Options) {
				if o.Ready, err = ParseReadiness([]string{step.requires}); err != nil {
					t.Fatal(err)
				}
			})
			code, body := get(t, "http://"+g.OpsAddress()+"/readyz")
			if want := strings.HasPrefix(step.want, "ready"); body != step.want+"\n" || (code == http.StatusOK) != want || g.Status().GetReady() != want {
				t.Errorf("%d %q, ready %v", code, body, g.Status().GetReady())
			}
			if step.then != nil {
				step.then(g)
			} else if err := g.stop(); err != nil {
				t.Error(err)
			}
		})
	}
	taken.Close()
	if _, err := ParseReadiness([]string{"all"}); err == nil || !strings.Contains(fmt.Sprint(err), "restored, listeners, revision") {
		t.Errorf("%v", err)
	}
}
