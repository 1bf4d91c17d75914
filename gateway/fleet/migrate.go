package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Migration describes what a migration has moved.
type Migration struct {
	Revision  int64
	Resources int
	Records   int // stored revisions

	// Done says that an earlier run had moved everything.
	Done bool
}

// ToEtcd moves the configuration of a gateway without a fleet to etcd, with its history, and
// makes the database the gateway's copy. The prefix must hold no other configuration. At every
// moment the configuration is whole in the database, and a run that was interrupted can be
// repeated.
func ToEtcd(ctx context.Context, local *bolt.Store, remote *etcd.Store) (Migration, error) {
	state := local.State()
	switch p := local.Pending(); {
	case p != nil:
		return Migration{}, fmt.Errorf("revision %d waits to be confirmed: start the gateway, and confirm it or roll back", p.GetRevision())
	case state.Revision() == 0:
		return Migration{}, errors.New("the data directory holds no configuration")
	}
	if local.Position() != nil {
		return alreadyInEtcd(ctx, local, remote)
	}
	records, err := recordsOf(local)
	if err != nil {
		return Migration{}, err
	}
	head, err := remote.Import(ctx, state, records)
	if errors.Is(err, etcd.ErrOccupied) {
		return Migration{}, fmt.Errorf("%w: choose another --etcd-prefix", err)
	} else if err != nil {
		return Migration{}, err
	}
	reading, err := remote.Read(ctx, head, etcd.Position{State: new(store.State)})
	if err != nil {
		return Migration{}, fmt.Errorf("etcd does not return what was written: %w", err)
	}
	if err := same(state, reading.State); err != nil {
		return Migration{}, fmt.Errorf("etcd does not return what was written: %w", err)
	}
	encoded, err := json.Marshal(positionAt(head))
	if err != nil {
		return Migration{}, err
	}
	if err := local.Follow(bolt.Copy{State: state, Position: encoded}); err != nil {
		return Migration{}, fmt.Errorf("etcd has the configuration, but the data directory cannot be made its copy: %w", err)
	}
	return Migration{Revision: state.Revision(), Resources: len(state.All()), Records: len(reading.Records)}, nil
}

// alreadyInEtcd checks that the fleet in etcd is that of the copy.
func alreadyInEtcd(ctx context.Context, local *bolt.Store, remote *etcd.Store) (Migration, error) {
	at, err := positionOf(local)
	if err != nil {
		return Migration{}, err
	}
	head, err := remote.Head(ctx)
	if err != nil {
		return Migration{}, err
	}
	if reason := at.differs(local.State(), head); reason != "" {
		return Migration{}, fmt.Errorf("the data directory is a copy of another fleet: %s", reason)
	}
	return Migration{Revision: head.Revision(), Resources: len(local.State().All()), Records: len(head.Records), Done: true}, nil
}

// FromEtcd moves the configuration of the fleet to the database of one gateway, with its
// history. The database must be empty or a copy of this fleet. The fleet does not change.
func FromEtcd(ctx context.Context, local *bolt.Store, remote *etcd.Store) (Migration, error) {
	reading, err := remote.Whole(ctx)
	if err != nil {
		return Migration{}, err
	}
	state, head := reading.State, reading.Head
	out := Migration{Revision: state.Revision(), Resources: len(state.All()), Records: len(reading.Records)}
	switch {
	case local.Position() != nil:
		at, err := positionOf(local)
		if err != nil {
			return Migration{}, err
		}
		if at.Instance != head.Instance {
			return Migration{}, fmt.Errorf("the data directory is a copy of another fleet (%s), and etcd holds %s", at.Instance, head.Instance)
		}
	case local.State().Revision() > 0:
		if same(state, local.State()) != nil {
			return Migration{}, fmt.Errorf("the data directory holds revision %d of another configuration: choose an empty --data-dir", local.State().Revision())
		}
		out.Done = true
		return out, nil
	}
	encoded, err := json.Marshal(positionAt(head))
	if err != nil {
		return Migration{}, err
	}
	err = local.Follow(bolt.Copy{State: state, Changed: state.Changed(local.State()), Records: bare(reading.Records), Position: encoded})
	if err != nil {
		return Migration{}, err
	}
	return out, local.Detach()
}

// same returns an error that names a difference between two states; nil if they are equal.
func same(a, b *store.State) error {
	if a.Revision() != b.Revision() {
		return fmt.Errorf("revision %d became revision %d", a.Revision(), b.Revision())
	}
	for _, ref := range a.Changed(b) {
		x, y := a.Get(ref.Kind, ref.Name), b.Get(ref.Kind, ref.Name)
		if x == nil || y == nil || !proto.Equal(x, y) {
			return fmt.Errorf("%v differs", ref)
		}
	}
	return nil
}

// recordsOf returns the records of a database, oldest first. The last one is that of its
// revision; if the database has none, recordsOf makes one.
func recordsOf(local *bolt.Store) ([]*revisions.Record, error) {
	last := local.State().Revision()
	oldest, err := local.Oldest()
	if err != nil {
		return nil, err
	}
	var out []*revisions.Record
	for n := max(oldest, 1); oldest > 0 && n <= last; n++ {
		r := &revisions.Record{}
		if r.Revision, err = local.Revision(n); err != nil {
			return nil, err
		}
		complete, err := local.EachPrior(n-1, n, func(p revisions.Prior) { r.Priors = append(r.Priors, p) })
		if err != nil {
			return nil, err
		}
		if r.Revision == nil || !complete {
			return nil, fmt.Errorf("the record of revision %d is missing", n)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		out = append(out, &revisions.Record{Revision: &adminv1.Revision{
			Revision: last, CommitTime: timestamppb.New(time.Now()), Principal: "gateway", Transport: adminv1.Transport_TRANSPORT_INTERNAL, Method: "migrate",
		}})
	}
	return out, nil
}
