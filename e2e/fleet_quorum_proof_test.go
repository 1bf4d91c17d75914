package e2e

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// writeEvery is how often a client writes.
const writeEvery = 50 * time.Millisecond

// proveQuorum kills the leader of etcd while clients write at two gateways, and then a second
// member. No acknowledged write is lost. Without a quorum the gateways refuse writes and serve.
func proveQuorum(p *proof) {
	f := startFleet(p.T, 3, "a", "b", "c")
	defer f.stop()
	writers := []*fleetWriter{newFleetWriter("a", 0), newFleetWriter("b", 0)}
	rounds, inForce := max(5*p.rounds, 1), 0
	for range rounds {
		ctx, stop := context.WithCancel(f.ctx)
		var writing sync.WaitGroup
		for i, w := range writers {
			n, admin := f.nodes[i], f.nodes[i].g.admin
			writing.Go(func() {
				for pace := time.NewTicker(writeEvery); ctx.Err() == nil; <-pace.C {
					switch err := w.write(f, n, admin); status.Code(err) {
					case codes.OK, codes.Aborted, codes.Unavailable:
					default:
						f.t.Errorf("a write at gateway %s: %v", n.id, err)
					}
				}
			})
		}
		f.acknowledges("with three members", writers)
		leader := f.etcd.leader(f)
		f.etcd.members[leader].kill()
		f.acknowledges("with two members", writers)
		second := f.etcd.leader(f)
		f.etcd.members[second].kill()
		for _, w := range writers {
			eventually(f.t, "writes at gateway "+w.name+" are refused", func() bool {
				_, _, _, unavailable := w.count()
				return unavailable >= 2
			})
		}
		f.answersAll()
		f.movesOn()
		for _, w := range writers {
			if acknowledged, _, _, unavailable := w.count(); unavailable < 2 {
				f.t.Errorf("a write at gateway %s was answered without a quorum; %d acknowledged", w.name, acknowledged)
			}
		}
		f.etcd.start(f.t, leader)
		f.etcd.start(f.t, second)
		f.acknowledges("with three members again", writers)
		stop()
		writing.Wait()
		f.converges()
		state := f.state()
		inForce = 0
		for _, w := range writers {
			inForce += w.check(f, state)
		}
	}
	acknowledged, refused, unknown := 0, 0, 0
	for _, w := range writers {
		a, r, u, _ := w.count()
		acknowledged, refused, unknown = acknowledged+a, refused+r, unknown+u
	}
	held := f.movesOn()
	f.stop()
	p.row(fmt.Sprintf("%d × the leader of three members dies, then the next leader, while 2 clients write", rounds),
		fmt.Sprintf("%d writes acknowledged, none lost; %d refused, none in force; %d may take effect, %d did", acknowledged, refused, unknown, inForce))
	p.row("", fmt.Sprintf("%d revisions; %s; %d open at the end", f.checkServed(), f.summary(), held))
}

// acknowledges waits until every writer has another acknowledged write.
func (f *testFleet) acknowledges(when string, writers []*fleetWriter) {
	f.t.Helper()
	for _, w := range writers {
		before, _, _, _ := w.count()
		eventually(f.t, fmt.Sprintf("a write of %s is acknowledged %s", w.name, when), func() bool {
			now, _, _, _ := w.count()
			return now > before
		})
	}
}

// answersAll waits until every gateway has answered more requests.
func (f *testFleet) answersAll() {
	f.t.Helper()
	for _, n := range f.nodes {
		before := n.answered()
		eventually(f.t, "gateway "+n.id+" answers requests", func() bool { return n.answered() > before })
	}
}

// answered returns the number of requests that the gateway answered.
func (n *fleetNode) answered() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.requests
}

// leader returns the member that leads, by what the running members say.
func (c *etcdCluster) leader(f *testFleet) (found int) {
	f.t.Helper()
	eventually(f.t, "a member of etcd leads", func() bool {
		for i, m := range c.members {
			if m.done() {
				continue
			}
			ctx, cancel := context.WithTimeout(f.ctx, 10*time.Second)
			status, err := f.client.Status(ctx, c.clients[i])
			cancel()
			if err == nil && status.Leader == status.Header.GetMemberId() {
				found = i
				return true
			}
		}
		return false
	})
	return found
}
