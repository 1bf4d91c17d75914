package e2e

import (
	"encoding/json"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// record returns the record of a revision that the head lists.
func (f *testFleet) record(head *etcd.Head, revision int64) (found *etcd.Record) {
	f.t.Helper()
	eventually(f.t, "a record can be read", func() bool {
		var err error
		found, err = f.store.Record(f.t.Context(), head, revision)
		return err == nil
	})
	return found
}

// answers returns the answers of the revisions up to a head, by number. It reads the records that
// were not read before, so it must be called before the fleet deletes them.
func (f *testFleet) answers(head *etcd.Head) map[int64]string {
	f.t.Helper()
	for _, b := range head.Records {
		if f.read[b.Revision] == b.ID {
			continue
		}
		now, ok := f.answered[b.Revision-1]
		if !ok && b.Revision > 1 {
			f.t.Fatalf("the record of revision %d was deleted too early", b.Revision-1)
		}
		for _, r := range f.record(head, b.Revision).Step.Puts {
			if store.KindOf(r) == adminv1.Kind_KIND_ROUTE && r.GetName() == "answer" {
				now = r.(*adminv1.Route).GetRespond().GetBody()
			}
		}
		f.read[b.Revision], f.answered[b.Revision] = b.ID, now
	}
	return f.answered
}

// heads returns every head that was ever in etcd, oldest first.
func (f *testFleet) heads() []*etcd.Head {
	f.t.Helper()
	var all []*etcd.Head
	var sealer *seal.Sealer
	var instance string
	for at := int64(0); ; {
		var resp *clientv3.GetResponse
		eventually(f.t, "an old head can be read", func() bool {
			var err error
			resp, err = f.client.Get(f.t.Context(), fleetPrefix+"/head", clientv3.WithRev(at))
			return err == nil
		})
		if len(resp.Kvs) == 0 {
			slices.Reverse(all)
			return all
		}
		if sealer == nil {
			sealer, instance = f.sealer()
		}
		h := &etcd.Head{Mod: resp.Kvs[0].ModRevision}
		plain, err := sealer.Open(seal.Place{Bucket: []byte("head"), Key: []byte(instance)}, resp.Kvs[0].Value)
		if err == nil {
			err = json.Unmarshal(plain, h)
		}
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, h)
		if at = h.Mod - 1; resp.Kvs[0].Version == 1 {
			slices.Reverse(all)
			return all
		}
	}
}

// sealer returns the sealer of the fleet, and the ID of its instance.
func (f *testFleet) sealer() (*seal.Sealer, string) {
	f.t.Helper()
	var record struct {
		Instance string
		Wrapped  []byte
	}
	resp, err := f.client.Get(f.t.Context(), fleetPrefix+"/key")
	if err == nil {
		err = json.Unmarshal(resp.Kvs[0].Value, &record)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	sealer, err := f.key.Unwrap(record.Wrapped)
	if err != nil {
		f.t.Fatal(err)
	}
	return sealer, record.Instance
}

// checkServed compares every recorded answer with the history in etcd, and returns the number
// of revisions in it. The traffic has ended.
//
// Each process answers with committed revisions only, none before its commit began, in
// the order of the revisions. Only a canary answers with a revision whose rollout failed.
func (f *testFleet) checkServed() int {
	f.t.Helper()
	heads := f.heads()
	last := f.head()
	answers := f.answers(last)
	began := map[string]time.Time{} // by the first revision with the answer
	for i, h := range heads {
		if i > 0 && (h.Revision() < heads[i-1].Revision() || h.Revision() > heads[i-1].Revision()+1) {
			f.t.Errorf("the head went from revision %d to %d", heads[i-1].Revision(), h.Revision())
		}
		if body := answers[h.Revision()]; began[body].IsZero() {
			began[body] = h.Since
		}
	}
	canaries := map[string][]string{} // the canaries of failed rollouts, by the answer of the revision
	for _, b := range last.Records {
		r := f.record(last, b.Revision).Revision.GetRollout()
		if r.GetState() != adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK {
			continue
		}
		body := answers[r.GetRevision()]
		canaries[body] = []string{}
		for _, c := range r.GetCanaries() {
			canaries[body] = append(canaries[body], c.GetGatewayId())
		}
	}
	for _, n := range f.nodes {
		next, life := int64(1), -1
		for _, s := range n.seen {
			if s.life != life {
				next, life = 1, s.life
			}
			at := next
			for at <= last.Revision() && answers[at] != s.body {
				at++
			}
			ids, failed := canaries[s.body]
			switch {
			case at > last.Revision() && began[s.body].IsZero():
				f.t.Errorf("gateway %s answered %q, which was never committed", n.id, s.body)
			case at > last.Revision():
				f.t.Errorf("gateway %s answered %q after a later revision", n.id, s.body)
			case s.first.Before(began[s.body]):
				f.t.Errorf("gateway %s answered %q at %v, before its commit began at %v", n.id, s.body, s.first, began[s.body])
			case failed && !slices.Contains(ids, n.id):
				f.t.Errorf("gateway %s is no canary, and answered %q, whose rollout failed", n.id, s.body)
			default:
				next = at
			}
		}
	}
	return len(answers)
}
