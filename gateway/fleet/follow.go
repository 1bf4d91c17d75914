package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/rollout"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// errDiverged reports that the history in etcd is not that of the member.
var errDiverged = errors.New("the gateway does not follow etcd")

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second

	// maxMoves bounds how often a read starts again because the head moved.
	maxMoves = 20
)

// Run follows the head until ctx ends, reports the status of this gateway to the fleet, and
// takes part in rollouts.
func (m *Member) Run(ctx context.Context) {
	var others sync.WaitGroup
	others.Go(func() { (&reporter{m: m}).run(ctx) })
	others.Go(func() { conductor{m}.run(ctx) })
	m.followHead(ctx)
	others.Wait()
}

// followHead follows the head until ctx ends. Every event of the watch, every end of it
// and a timer make it read the head again.
func (m *Member) followHead(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		head, err := m.sync(ctx)
		if err == nil {
			failures = 0
			m.retryCopy(ctx)
			err = m.wait(ctx, head)
		}
		if err != nil && ctx.Err() == nil {
			pause(ctx, backoff(failures))
			failures++
		}
	}
}

// backoff returns how long to wait after a number of failures.
func backoff(failures int) time.Duration {
	d := min(minBackoff<<min(failures, 10), maxBackoff)
	return d/2 + rand.N(d)
}

// wait waits until the head may have changed, or for the time of a poll.
func (m *Member) wait(ctx context.Context, h *etcd.Head) error {
	ctx, cancel := context.WithTimeout(ctx, m.poll)
	defer cancel()
	err := m.remote.Wait(ctx, h)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Sync reads the head, and makes its state live if another member has committed it. When it returns
// nil, the gateway is at the head that it has read.
func (m *Member) Sync(ctx context.Context) error {
	_, err := m.sync(ctx)
	return err
}

func (m *Member) sync(ctx context.Context) (*etcd.Head, error) {
	m.syncing.Lock()
	defer m.syncing.Unlock()
	for range maxMoves {
		head, err := m.readHead(ctx)
		if err != nil {
			return nil, err
		}
		m.tickets.sync(ctx, head)
		err = m.reach(ctx, head)
		if errors.Is(err, etcd.ErrMoved) {
			continue
		}
		return head, err
	}
	return nil, etcd.ErrMoved
}

// readHead reads the head. It creates the fleet if neither etcd nor the member has one.
func (m *Member) readHead(ctx context.Context) (*etcd.Head, error) {
	// Copy the position before the read. The head cannot be older than this position, but
	// it may be older than a commit that this gateway makes during the read.
	m.mu.Lock()
	at, state := m.position, m.state
	m.mu.Unlock()
	head, err := m.remote.Head(ctx)
	if errors.Is(err, etcd.ErrEmpty) && at.Instance == "" {
		head, err = m.remote.Create(ctx)
	}
	if errors.Is(err, etcd.ErrEmpty) {
		return nil, m.diverged("etcd no longer holds the fleet: it was wiped, or --etcd-prefix has changed")
	}
	if err != nil {
		if ctx.Err() == nil {
			m.unreachable(err)
		}
		return nil, err
	}
	if reason := at.differs(state, head); reason != "" {
		return nil, m.diverged(reason)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status.Diverged != "" {
		m.log.Info("etcd holds the fleet of the gateway again")
		m.status.Diverged = ""
	}
	m.contact(head)
	return head, nil
}

// differs returns why a head does not continue the history of a state, or "" if
// it does.
func (at position) differs(state *store.State, h *etcd.Head) string {
	if at.Instance == "" {
		return ""
	}
	revision := state.Revision()
	_, listed := h.Find(revision, at.ID)
	switch {
	case h.Instance != at.Instance:
		return fmt.Sprintf("etcd holds another fleet (%s): this gateway belongs to %s", h.Instance, at.Instance)
	case h.Cluster != at.Cluster:
		return fmt.Sprintf("etcd is another cluster (%x): this gateway followed %x. It was restored from a backup, or replaced", h.Cluster, at.Cluster)
	case h.Read < at.Read:
		return fmt.Sprintf("etcd has gone back from its revision %d to %d: it was restored from a backup", at.Read, h.Read)
	case h.Revision() < revision:
		return fmt.Sprintf("etcd has gone back to revision %d: this gateway serves revision %d", h.Revision(), revision)
	case !listed && revision >= h.Oldest():
		return fmt.Sprintf("revision %d in etcd differs from the one that this gateway serves", revision)
	}
	return ""
}

// diverged records why the member does not follow etcd.
func (m *Member) diverged(reason string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	reason += ". The gateway keeps serving its revision and refuses writes. To follow etcd, stop the gateway, move its state.db away and start it again"
	if m.status.Diverged != reason {
		m.log.Error("the history in etcd does not continue this gateway's revision", "revision", m.state.Revision(), "error", reason)
		m.notify(Diverged, 0, reason)
		m.status.Diverged = reason
	}
	m.status.Unreachable, m.status.Contacted = "", time.Now()
	return fmt.Errorf("%w: %s", errDiverged, reason)
}

// reach makes the state of a head live, unless it is live already.
func (m *Member) reach(ctx context.Context, head *etcd.Head) error {
	m.mu.Lock()
	same := m.head != nil && m.head.Mod == head.Mod
	from := etcd.Position{State: m.state, ID: m.position.ID}
	m.mu.Unlock()
	if same {
		return nil
	}
	to, err := m.destination(ctx, head, from)
	if err != nil {
		return err
	}
	f := &store.Followed{State: to.state, Instance: head.Instance, Pending: to.pending, Complete: to.complete, Updates: updates(to.records)}
	if to.pending.GetExpireTime() != nil {
		// Both times are by the clock of the gateway that took the write. Clocks differ.
		f.Within = to.pending.GetExpireTime().AsTime().Sub(head.Since) + rand.N(maxDeadlineDelay)
	}
	f.Fresh = func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.head == nil || head.Mod > m.head.Mod
	}
	f.Keep = func() {
		m.moved(head, to.state, to.id)
		m.keep(bare(to.records), to.kept())
	}
	m.trials.expect(to.pending.GetRollout())
	err = m.follow(ctx, f)
	if err == nil {
		m.trials.reached(to)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Behind = ""
	if err != nil && ctx.Err() == nil {
		m.status.Behind = err.Error()
	}
	return err
}

// A destination is what a head means for one gateway.
type destination struct {
	state    *store.State
	id       string // the commit that made the state
	records  []*etcd.Record
	complete bool // as in etcd.Reading
	pending  *adminv1.Pending
}

// kept returns the pending revision for the copy in bolt: one that the copy does not hold is
// not pending there.
func (d *destination) kept() *adminv1.Pending {
	if d.pending.GetRevision() != d.state.Revision() {
		return nil
	}
	return d.pending
}

// destination reads what a gateway at a position must make live. While a revision is rolled
// out, that is the state before it, unless the gateway is a canary.
func (m *Member) destination(ctx context.Context, head *etcd.Head, from etcd.Position) (*destination, error) {
	pending, err := head.Pending()
	if err != nil {
		return nil, err
	}
	reading, err := m.remote.Read(ctx, head, from)
	if err != nil {
		return nil, err
	}
	if r := pending.GetRollout(); r != nil && !rollout.IsCanary(r, m.id) {
		if reading.Before.State == nil { // the gateway runs the revision under another ID
			if reading, err = m.remote.Read(ctx, head, etcd.Position{State: new(store.State)}); err != nil {
				return nil, err
			}
		}
		if reading.Before.State == nil {
			return nil, fmt.Errorf("etcd: the state before revision %d is missing", head.Revision())
		}
		before := reading.Records[:max(len(reading.Records)-1, 0)]
		return &destination{state: reading.Before.State, id: reading.Before.ID, records: before, complete: reading.Complete, pending: pending}, nil
	}
	to := &destination{state: reading.State, id: head.ID(), records: reading.Records, complete: reading.Complete, pending: pending}
	if len(to.records) == 0 { // the head was amended
		last, err := m.remote.Last(ctx, head)
		if err != nil {
			return nil, err
		}
		if last != nil {
			to.records = append(to.records, last)
		}
	}
	return to, nil
}

// maxDeadlineDelay bounds by how much a follower delays the rollback of a revision that was not
// confirmed. The delay lets the gateway that accepted the write roll back first, and keeps the
// members from all writing at once.
const maxDeadlineDelay = 3 * time.Second

// updates returns the steps of records for watchers.
func updates(records []*etcd.Record) []store.Update {
	var out []store.Update
	for _, record := range records {
		u := store.Update{Revision: record.Step.Revision, Resources: record.Step.Puts, Comment: record.Revision.GetComment()}
		for _, c := range record.Revision.GetChanges() {
			u.Changes = append(u.Changes, store.Change{Kind: c.GetKind(), Name: c.GetName(), Action: c.GetAction()})
		}
		out = append(out, u)
	}
	return out
}

// bare returns the records as bolt stores them.
func bare(records []*etcd.Record) []*revisions.Record {
	var out []*revisions.Record
	for _, r := range records {
		out = append(out, r.Record)
	}
	return out
}

// retryCopy writes the copy in bolt again if the last attempt failed.
func (m *Member) retryCopy(ctx context.Context) {
	m.mu.Lock()
	head, was, stale := m.head, m.kept, m.status.Stale != ""
	m.mu.Unlock()
	if !stale || head == nil {
		return
	}
	to, err := m.destination(ctx, head, etcd.Position{State: was.state, ID: was.position.ID})
	if err == nil { // else the next sync reads a newer head
		m.keepAt(head, to)
	}
}

// keepAt writes what a head means to the copy, unless the member has another head now: a commit may
// have come first, whose state does not fit the records and the pending revision of the head.
func (m *Member) keepAt(head *etcd.Head, to *destination) {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	m.mu.Lock()
	current, state, at := m.head == head, m.state, m.position
	m.mu.Unlock()
	if current {
		m.write(state, at, bare(to.records), to.kept())
	}
}

// pause waits for a time, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
