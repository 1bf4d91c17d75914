package e2e

import (
	"fmt"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// proveConfirmations kills the gateway that took a write with confirm_within. The others roll
// back unless a client confirms the write at one of them.
func proveConfirmations(p *proof) {
	f := startFleet(p.T, 1, "a", "b", "c")
	defer f.stop()
	kills, confirmed, rolledBack := 0, 0, 0
	for range max(5*p.rounds, 1) {
		for _, confirm := range []bool{true, false} {
			taker, other := f.nodes[kills%len(f.nodes)], f.nodes[(kills+1)%len(f.nodes)]
			before := f.head()
			body, within := f.newAnswer("pending"), 3*time.Second
			if confirm {
				within = time.Hour
			}
			answered, admin := make(chan error, 1), taker.g.admin
			go func() {
				_, err := admin.Apply(longContext(f.t), &adminv1.ApplyRequest{
					Resources: wrap(f.t, []proto.Message{answer(body, http.StatusOK)}), Options: &adminv1.WriteOptions{ConfirmWithin: durationpb.New(within)}})
				answered <- err
			}()
			head := f.awaitHead("the write is committed", func(h *etcd.Head) bool { return h.Revision() > before.Revision() })
			acknowledged := kills%4 < 2
			if acknowledged {
				if err := <-answered; err != nil {
					f.t.Fatal(err)
				}
			}
			taker.kill()
			if kills++; !acknowledged {
				<-answered
			}
			if confirm {
				eventually(f.t, "another gateway confirms", func() bool {
					_, err := other.g.admin.Confirm(longContext(f.t), &adminv1.ConfirmRequest{Revision: head.Revision()})
					return err == nil
				})
				confirmed++
			} else {
				f.awaitHead("another gateway rolls back", func(h *etcd.Head) bool { return h.Revision() > head.Revision() })
				rolledBack++
			}
			f.restart(taker)
			f.converges()
			end := f.head()
			pending, err := end.Pending()
			want := f.answers(end)[before.Revision()]
			if confirm {
				want = body
			}
			if got := f.answers(end)[end.Revision()]; err != nil || pending != nil || got != want {
				f.t.Errorf("confirm %v: the answer is %q instead of %q; pending %v, %v", confirm, got, want, pending, err)
			}
		}
	}
	f.movesOn()
	f.stop()
	p.row(fmt.Sprintf("%d kills of the gateway that took the write", kills), fmt.Sprintf("%d confirmed elsewhere, %d rolled back; %d revisions; %s", confirmed, rolledBack, f.checkServed(), f.summary()))
}
