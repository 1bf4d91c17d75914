// After `kill -9` during many writes, every acknowledged write is stored and
// served, rejected writes are not, and every write is applied completely or not at
// all. DRAWBRIDGE_KILLS is the number of kills.

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestAcknowledgedWritesSurviveAKill(t *testing.T) {
	t.Parallel()
	for name, flags := range storesToKill(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testAcknowledgedWrites(t, kills(t), flags...)
		})
	}
}

func testAcknowledgedWrites(t *testing.T, kills int, flags ...string) {
	g := startGateway(t, flags...)
	g.apply(listener("web", protocolHTTP, ""))
	body := func(name string) string { return "answer " + name }
	respond := func(name, listener string) *adminv1.Route {
		return &adminv1.Route{
			Name: name, Listeners: []string{listener}, Match: &adminv1.RouteMatch{Path: &adminv1.PathMatch{Kind: &adminv1.PathMatch_Prefix{Prefix: "/" + name + "/"}}},
			Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: body(name)}},
		}
	}

	var mu sync.Mutex
	acknowledged, unanswered := map[string]bool{}, map[string]bool{} // pairs of writes, by name
	var next atomic.Int64
	for round := range kills {
		var before int64 = 10 + 7*int64(round)%20 // acknowledged writes before the kill
		var writing sync.WaitGroup
		for range 3 {
			writing.Go(func() {
				for {
					name := fmt.Sprint("r", next.Add(1))
					_, err := g.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: wrap(t, []proto.Message{respond(name+"-a", "web"), respond(name+"-b", "web")})})
					mu.Lock()
					if err != nil {
						unanswered[name] = true
						mu.Unlock()
						return // the gateway is gone
					}
					acknowledged[name] = true
					mu.Unlock()
					if atomic.AddInt64(&before, -1) == 0 {
						_ = g.cmd.Process.Kill()
					}
					_, err = g.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: wrap(t, []proto.Message{respond(name+"-c", "web"), respond(name+"-d", "missing")})})
					if code := status.Code(err); code != codes.InvalidArgument && code != codes.Unavailable {
						t.Errorf("a bad write: %v", err)
					}
				}
			})
		}
		writing.Wait()
		<-g.exited
		g = g.restart()

		stored := map[string]int{} // the number of stored writes of each pair
		for token := ""; ; {
			page, err := g.admin.ListRoutes(longContext(t), &adminv1.ListRoutesRequest{PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.GetRoutes() {
				name, half, _ := strings.Cut(r.GetName(), "-")
				if stored[name]++; half != "a" && half != "b" || r.GetRespond().GetBody() != body(r.GetName()) {
					t.Errorf("round %d: there is %v", round, r)
				}
			}
			if token = page.GetNextPageToken(); token == "" {
				break
			}
		}
		for name := range acknowledged {
			if stored[name] != 2 {
				t.Fatalf("round %d: write %s was acknowledged, and %d of its 2 routes are stored", round, name, stored[name])
			}
		}
		for name, n := range stored {
			if n != 2 || !acknowledged[name] && !unanswered[name] {
				t.Errorf("round %d: %d routes of write %s are stored", round, n, name)
			}
		}
		if revision := g.getStatus().GetRevision(); revision != int64(1+len(stored)) {
			t.Errorf("round %d: revision %d after %d writes", round, revision, 1+len(stored))
		}
	}
	if len(acknowledged) < 10*kills {
		t.Errorf("only %d writes were acknowledged", len(acknowledged))
	}
	served := 0
	for name := range acknowledged {
		if served++; served > 20 {
			break
		}
		if code, got := get(t, fmt.Sprintf("http://%s/%s-b/", g.address("web"), name)); code != 200 || got != body(name+"-b") {
			t.Errorf("route %s-b answers %d %q", name, code, got)
		}
	}
}
