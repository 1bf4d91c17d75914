// Listeners can swap addresses, pass them to other listeners and take them back
// in one revision. If another program uses an address, the whole revision is
// refused.

package e2e

import (
	"net"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestListenersMove(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGateway(t)
	responder := func(name string) (*adminv1.Listener, *adminv1.Route) {
		r := forward(name, name, "/", "")
		r.Action = &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: name}}
		return listener(name, protocolHTTP, ""), r
	}
	one, routeOne := responder("one")
	two, routeTwo := responder("two")
	g.serveBoth(a, raw, raw)
	g.apply(one, routeOne, two, routeTwo)
	first, second := g.address("one"), g.address("two")
	expect := func(what, address, want string) {
		t.Helper()
		if code, body := get(t, "http://"+address+"/"); code != 200 || body != want {
			t.Errorf("%s: %s answers %d %q, want %q", what, address, code, body, want)
		}
	}

	// A write without changes keeps the port.
	g.apply(proto.Clone(one))
	if now := g.address("one"); now != first {
		t.Errorf("the unchanged listener moved from %s to %s", first, now)
	}

	// Listeners one and two swap addresses.
	one.Address, two.Address = first, second
	g.apply(one, two)
	one.Address, two.Address = second, first
	g.apply(one, two)
	expect("exchanged", second, "one")
	expect("exchanged", first, "two")

	// A listener of another name and kind takes over an address in the revision
	// that removes its owner. Streams of the old listener continue.
	stream := dial(t, g.address("raw"))
	if err := pingPong(stream, "before"); err != nil {
		t.Fatal(err)
	}
	three, routeThree := responder("three")
	three.Address = g.address("raw")
	_, err := g.admin.Apply(longContext(t), &adminv1.ApplyRequest{
		Resources: wrap(t, []proto.Message{three, routeThree}),
		Deletes:   []*adminv1.ResourceDelete{{Kind: adminv1.Kind_KIND_LISTENER, Name: "raw"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	expect("taken over", three.Address, "three")
	if err := pingPong(stream, "after"); err != nil {
		t.Errorf("the old listener's stream: %v", err)
	}

	// An address in use by another program fails the whole revision.
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	before, err := g.admin.GetConfig(longContext(t), &adminv1.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	four, routeFour := responder("four")
	taken := listener("taken", protocolTCP, "web")
	taken.Address = other.Addr().String()
	routeOne.GetRespond().Body = "changed"
	_, err = g.admin.Apply(longContext(t), &adminv1.ApplyRequest{Resources: wrap(t, []proto.Message{four, routeFour, taken, routeOne})})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "resources[2].listener.address: ") {
		t.Errorf("an address in use: %v", err)
	}
	after, err := g.admin.GetConfig(longContext(t), &adminv1.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(before, after) || g.listener("four") != nil {
		t.Error("a failed revision left something behind")
	}
	expect("after the refusal", second, "one")
}
