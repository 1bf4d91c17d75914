// After `kill -9` in the middle of many writes, every acknowledged write is
// stored, and the gateway serves it.

package e2e

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
)

func TestAcknowledgedWritesSurviveAKill(t *testing.T) {
	t.Parallel()
	const writes, writers = 300, 3
	g := startGateway(t)
	g.apply(listener("web", protocolHTTP, ""))
	body := func(i int) string { return fmt.Sprintf("answer %d", i) }
	route := func(i int) *adminv1.Route {
		r := forward(fmt.Sprintf("r%d", i), "web", fmt.Sprintf("/%d/", i), "")
		r.Action = &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: body(i)}}
		return r
	}

	acknowledged := make([]atomic.Bool, writes)
	var next, count atomic.Int64
	killAt := []int64{60, 140, 230} // each in the middle of the writes
	for round := 0; ; round++ {
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= writes {
						return
					}
					_, err := g.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: wrap(t, []proto.Message{route(i)})})
					if err != nil {
						if round >= len(killAt) {
							t.Errorf("write %d: %v", i, err)
						}
						return // the gateway is gone
					}
					acknowledged[i].Store(true)
					if n := count.Add(1); round < len(killAt) && n == killAt[round] {
						_ = g.cmd.Process.Kill()
					}
				}
			})
		}
		wg.Wait()
		killed := round < len(killAt)
		if killed {
			<-g.exited
			g = g.restart()
		}
		for i := range acknowledged {
			if !acknowledged[i].Load() {
				continue
			}
			r, err := g.admin.GetRoute(patient(t), &adminv1.GetRouteRequest{Name: fmt.Sprintf("r%d", i)})
			if err != nil || r.GetRespond().GetBody() != body(i) {
				t.Fatalf("round %d: write %d was acknowledged, and now is %v, %v", round, i, r, err)
			}
		}
		if !killed {
			break
		}
	}
	if count.Load() < writes-int64(len(killAt)*writers) {
		t.Errorf("only %d of %d writes were acknowledged", count.Load(), writes)
	}
	for i := range acknowledged {
		if acknowledged[i].Load() && i%20 == 0 {
			if code, got := get(t, fmt.Sprintf("http://%s/%d/", g.address("web"), i)); code != 200 || got != body(i) {
				t.Errorf("route %d answers %d %q", i, code, got)
			}
		}
	}
}
