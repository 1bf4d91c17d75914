package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	writersPerGateway = 2
	largeRoutes       = 10
	largeBytes        = 60_000 // the size of a large route, so that a write takes several chunks
)

// A fleetWriter is a client that writes all the time. Each write replaces its large routes, if
// it has any, and creates one small route. So the small routes say which writes took effect, and
// the large routes say whether they took effect as a whole.
type fleetWriter struct {
	name  string
	large int

	mu                             sync.Mutex
	next                           int          // the number of the next write; guarded by mu
	acknowledged, refused, unknown map[int]bool // by number; guarded by mu
	unavailable                    int          // answers in sequence; guarded by mu
}

func newFleetWriter(name string, large int) *fleetWriter {
	return &fleetWriter{name: name, large: large, next: 1, acknowledged: map[int]bool{}, refused: map[int]bool{}, unknown: map[int]bool{}}
}

// write makes the next write, which takes a time of its own. It returns the error of the gateway.
func (w *fleetWriter) write(f *testFleet, n *fleetNode, admin adminv1.AdminServiceClient) error {
	w.mu.Lock()
	number := w.next
	w.next++
	w.mu.Unlock()
	small := forward(fmt.Sprintf("small-%s-%d", w.name, number), "web", fmt.Sprintf("/small/%s/%d", w.name, number), "")
	small.Action = &adminv1.Route_Respond{Respond: &adminv1.Respond{}}
	all := []proto.Message{small, answer(f.newAnswer("at-"+n.id), http.StatusOK)}
	for i := range w.large {
		r := forward(fmt.Sprintf("large-%s-%d", w.name, i), "web", fmt.Sprintf("/large/%s/%d", w.name, i), "")
		text := fmt.Sprintf("%d ", number)
		r.Action = &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: strings.Repeat(text, largeBytes/len(text))}}
		all = append(all, r)
	}
	ctx, cancel := context.WithTimeout(f.ctx, testTimeout)
	defer cancel()
	_, err := admin.Apply(ctx, &adminv1.ApplyRequest{Resources: wrap(f.t, all)})
	w.mu.Lock()
	defer w.mu.Unlock()
	switch code := status.Code(err); {
	case err == nil:
		w.acknowledged[number] = true
	case code == codes.Aborted, strings.Contains(err.Error(), "nothing was changed"):
		w.refused[number] = true
	default:
		w.unknown[number] = true
	}
	if w.unavailable++; status.Code(err) != codes.Unavailable {
		w.unavailable = 0
	}
	return err
}

// count returns the numbers of writes with each answer.
func (w *fleetWriter) count() (acknowledged, refused, unknown, unavailable int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acknowledged), len(w.refused), len(w.unknown), w.unavailable
}

// check compares the state in etcd with the answers to a writer, which does not write. It returns how
// many writes without an answer took effect.
func (w *fleetWriter) check(f *testFleet, state *store.State) (tookEffect int) {
	f.t.Helper()
	last, found := 0, map[int]bool{}
	for _, r := range state.All() {
		text, ok := strings.CutPrefix(r.GetName(), "small-"+w.name+"-")
		if number, err := strconv.Atoi(text); ok && err == nil {
			found[number] = true
			last = max(last, number)
			switch {
			case w.refused[number]:
				f.t.Errorf("write %d of %s was refused, and took effect", number, w.name)
			case !w.acknowledged[number] && !w.unknown[number]:
				f.t.Errorf("write %d of %s was never made", number, w.name)
			case w.unknown[number]:
				tookEffect++
			}
		}
	}
	for number := range w.acknowledged {
		if !found[number] {
			f.t.Errorf("write %d of %s was acknowledged, and is lost", number, w.name)
		}
	}
	for i := range w.large {
		name := fmt.Sprintf("large-%s-%d", w.name, i)
		r, ok := state.Get(adminv1.Kind_KIND_ROUTE, name).(*adminv1.Route)
		if text, _, _ := strings.Cut(r.GetRespond().GetBody(), " "); last > 0 && (!ok || text != strconv.Itoa(last)) {
			f.t.Errorf("route %s is of write %s, and the last write is %d: a write took effect in part", name, text, last)
		}
	}
	return tookEffect
}

// state reads the state in force from etcd, and checks it.
func (f *testFleet) state() (state *store.State) {
	f.t.Helper()
	eventually(f.t, "the state can be read", func() bool {
		reading, err := f.store.Read(f.t.Context(), f.head(), etcd.Position{State: new(store.State)})
		if err == nil {
			state = reading.State
		}
		return err == nil
	})
	return state
}

// leftovers counts the chunks in etcd to which the head does not refer.
func (f *testFleet) leftovers() (n int) {
	f.t.Helper()
	eventually(f.t, "the chunks can be listed", func() bool {
		n = 0
		before := f.head()
		for _, kind := range []string{"revision/", "checkpoint/"} {
			resp, err := f.client.Get(f.t.Context(), fleetPrefix+"/"+kind, clientv3.WithPrefix(), clientv3.WithKeysOnly())
			if err != nil {
				return false
			}
			for _, kv := range resp.Kvs {
				parts := strings.Split(string(kv.Key), "/") // "", prefix, kind, revision, ID, chunk
				if id := parts[4]; id != before.Checkpoint.ID && !slices.ContainsFunc(before.Records, func(b etcd.Blob) bool { return b.ID == id }) {
					n++
				}
			}
		}
		return f.head().Mod == before.Mod
	})
	return n
}

// proveWrites kills a gateway in the middle of writes of many chunks, while clients write at
// two gateways.
func proveWrites(p *proof) {
	f := startFleet(p.T, 1, "a", "b", "c")
	defer f.stop()
	var writers []*fleetWriter
	at := map[*fleetWriter]*fleetNode{}
	for _, n := range f.nodes[:2] {
		for i := range writersPerGateway {
			w := newFleetWriter(fmt.Sprint(n.id, i), largeRoutes)
			writers, at[w] = append(writers, w), n
		}
	}
	left, rounds := 0, max(20*p.rounds, 2)
	for round := range rounds {
		victim := f.nodes[round%2]
		var writing sync.WaitGroup
		ctx, stop := context.WithCancel(f.ctx)
		for _, w := range writers {
			n, admin, life := at[w], at[w].g.admin, at[w].life
			writing.Go(func() {
				for ctx.Err() == nil {
					err := w.write(f, n, admin)
					if code := status.Code(err); !n.lives(life) {
						return
					} else if err != nil && code != codes.Aborted && code != codes.Unavailable { // as on a machine that stalls
						f.t.Errorf("a write at gateway %s: %v", n.id, err)
						return
					}
				}
			})
		}
		f.awaitChunks(1 + rand.IntN(20))
		victim.kill()
		stop()
		writing.Wait()
		left += f.leftovers()
		state := f.state()
		for _, w := range writers {
			w.check(f, state)
		}
		f.restart(victim)
		f.converges()
	}
	for range 2 { // the first commit may be of the revision that a dead writer wrote
		if err := newFleetWriter("last-"+strconv.FormatInt(f.next.Load(), 10), 0).write(f, f.nodes[0], f.nodes[0].g.admin); err != nil {
			f.t.Fatal(err)
		}
	}
	if n := f.leftovers(); n > 0 {
		f.t.Errorf("%d chunks of dead writers remain", n)
	}
	f.converges()
	tookEffect, acknowledged, refused, unknown := 0, 0, 0, 0
	state := f.state()
	for _, w := range writers {
		a, r, u, _ := w.count()
		acknowledged, refused, unknown, tookEffect = acknowledged+a, refused+r, unknown+u, tookEffect+w.check(f, state)
	}
	held := f.movesOn()
	f.stop()
	p.row(fmt.Sprintf("%d kills while %d clients write %d kB each time", rounds, len(writers), largeRoutes*largeBytes/1000),
		fmt.Sprintf("%d writes acknowledged, none lost; %d refused, none in force; %d without an answer, %d of them in force as a whole; %d chunks left by the dead, 0 at the end", acknowledged, refused, unknown, tookEffect, left))
	p.row("", fmt.Sprintf("%d revisions; %s; %d open at the end", f.checkServed(), f.summary(), held))
}

// awaitChunks waits until gateways have written a number of chunks.
func (f *testFleet) awaitChunks(n int) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, testTimeout)
	defer cancel()
	for resp := range f.client.Watch(ctx, fleetPrefix+"/revision/", clientv3.WithPrefix(), clientv3.WithFilterDelete()) {
		if n -= len(resp.Events); n <= 0 {
			return
		}
	}
	f.t.Fatalf("not after %v: gateways write", testTimeout)
}
