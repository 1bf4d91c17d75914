// A removed listener accepts no more connections. Its open connections continue
// until they end by themselves.

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestRemovedListenerDrains(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	web := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		_, _ = io.WriteString(w, "finished")
	})
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGateway(t)
	g.serveBoth(a, web, raw)

	stream := dial(t, g.address("raw"))
	if err := pingPong(stream, "before"); err != nil {
		t.Fatal(err)
	}
	addresses := []string{g.address("web"), g.address("raw")}
	answered := make(chan string, 1)
	go func() {
		code, body, err := tryGet(t, oneRequestClient, "http://"+addresses[0]+"/")
		answered <- fmt.Sprint(code, " ", body, " ", err)
	}()
	<-arrived

	g.remove(ref(adminv1.Kind_KIND_LISTENER, "web"), ref(adminv1.Kind_KIND_LISTENER, "raw"))
	for _, address := range addresses {
		if !refuses(address) {
			t.Errorf("%s still accepts connections after the answer", address)
		}
	}
	for _, name := range []string{"web", "raw"} {
		if l := g.listener(name); l.GetState() != adminv1.ListenerState_LISTENER_STATE_DRAINING || l.GetConnections() != 1 {
			t.Errorf("%s has a connection left, and its status is %v", name, l)
		}
	}
	if err := pingPong(stream, "after"); err != nil {
		t.Errorf("the stream in flight: %v", err)
	}
	close(release)
	if got := <-answered; got != "200 finished <nil>" {
		t.Errorf("the request in flight: %s", got)
	}
	if err := stream.CloseWrite(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(stream); err != nil || len(rest) > 0 {
		t.Errorf("the stream in flight ended with %q, %v", rest, err)
	}
	eventually(t, "the drained listeners are gone from the status", func() bool {
		return g.listener("web") == nil && g.listener("raw") == nil
	})

	// A new listener can use the address.
	next := listener("raw", protocolTCP, "raw")
	next.Address = addresses[1]
	g.apply(next)
	if answer, err := exchange(t, addresses[1], "again"); err != nil || answer != "again" {
		t.Errorf("the next listener at the address: %q, %v", answer, err)
	}
}
