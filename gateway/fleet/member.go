package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/certs/tickets"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/rollout"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// ErrBehind reports that another gateway changed the configuration first. Sync follows it;
// then the write can be drafted again.
var ErrBehind = errors.New("another gateway changed the configuration first")

// commitTime bounds a commit to etcd.
const commitTime = 20 * time.Second

// An Event is a change of a member's connection to its fleet, or of a rollout.
type Event int

// The events.
const (
	Connected    Event = iota // etcd answers again
	Disconnected              // etcd does not answer
	Diverged                  // etcd does not continue the history of the member
	Duplicate                 // another gateway has the ID of the member

	RolloutStarted    // a rollout began
	RolloutPromoted   // a rollout ended, and all gateways run its revision
	RolloutRolledBack // a rollout failed
)

// Options configure a Member. Only Traffic, Notify, Poll, Tickets and Now may be zero.
type Options struct {
	// ID names the gateway in the fleet. Describe returns the gateway's description of itself,
	// without gateway_id, lag, connected and last_seen_time.
	ID       string
	Describe func() *adminv1.Gateway

	Remote *etcd.Store
	Local  *bolt.Store

	// Follow makes a state that another member has committed live.
	Follow func(context.Context, *store.Followed) error

	// Traffic counts the traffic of the gateway, by which rollouts are judged. Nil: the
	// gateway has none.
	Traffic rollout.Source

	// Notify receives the events of the member, with the revision that they are about or 0. It
	// must not block. Nil: not called.
	Notify func(e Event, revision int64, message string)

	Logger hclog.Logger

	// Poll is how often the head is read without an event. 0: 15s.
	Poll time.Duration

	// Tickets receives the secrets of TLS tickets that the fleet shares. Nil: the member takes
	// no part in making them.
	Tickets *tickets.Shared

	// Now returns the time that the member writes to etcd, and by which it rotates these
	// secrets. Nil: time.Now.
	Now func() time.Time
}

// A Member is the store of a gateway in a fleet. The methods of the writer's store must
// not be called concurrently with each other; all others may be called concurrently.
type Member struct {
	id       string
	claim    etcd.Claim // the gateway's claim of its ID; only the reporter uses it
	describe func() *adminv1.Gateway
	trials   *trials
	tickets  *ticketSharer // guarded by syncing

	remote *etcd.Store
	follow func(context.Context, *store.Followed) error
	notify func(Event, int64, string)
	log    hclog.Logger
	poll   time.Duration
	now    func() time.Time

	changed chan struct{} // holds a value if the gateway's description may have changed

	syncing sync.Mutex // held by Sync

	keeping sync.Mutex  // held while local is written
	local   *bolt.Store // guarded by keeping
	lent    bool        // another process owns local; guarded by keeping
	claimed bool        // the ID was claimed since the start, and since Reclaim; guarded by keeping

	mu       sync.Mutex
	position position     // the position of state; guarded by mu
	state    *store.State // committed or followed last; guarded by mu
	head     *etcd.Head   // the head of state; nil: not read since the start; guarded by mu
	status   Status       // guarded by mu
	kept     kept         // guarded by mu
}

// A position says where a state is in etcd. The copy in bolt has it as JSON.
type position struct {
	Cluster  uint64
	Instance string
	ID       string // the ID of the commit
	Read     int64  // etcd's revision when the head was read
}

// positionAt returns the position of a head.
func positionAt(h *etcd.Head) position { return position{h.Cluster, h.Instance, h.ID(), h.Read} }

// positionOf returns the position of a copy.
func positionOf(local *bolt.Store) (at position, err error) {
	if err := json.Unmarshal(local.Position(), &at); err != nil {
		return position{}, fmt.Errorf("the data directory's position in the fleet: %w", err)
	}
	return at, nil
}

// kept is the content of the copy in bolt.
type kept struct {
	state    *store.State
	position position
}

// A Status describes the connection of a member to its fleet.
type Status struct {
	Instance  string    // "": unknown
	Head      int64     // the latest revision that etcd has reported; 0: none since the start
	Since     time.Time // when Head was committed
	Contacted time.Time // when etcd answered last; zero: not since the start

	// Unreachable says why etcd does not answer; "": it does. Diverged says why the member
	// does not follow etcd; "": it does. Stale says why the copy in bolt is older than
	// the live revision; "": it is not.
	Unreachable, Diverged, Stale string

	// Duplicate says which gateway has the ID of the member; "": the member has it, or has not
	// tried to claim it.
	Duplicate string

	Behind string // why the gateway cannot follow the head; "": it can

	Copy int64 // the revision of the copy in bolt

	// TicketsMade is when the newest secret of TLS tickets was made; zero: the gateway has
	// none, and uses keys of its own. TicketsError says why the secrets could not be read,
	// rotated or kept; "": they could.
	TicketsMade  time.Time
	TicketsError string
}

// New returns a member that has the state of its last good copy. It does not wait for
// etcd.
func New(o Options) (*Member, error) {
	m := &Member{
		id: o.ID, claim: etcd.Claim{Directory: o.Local.InstanceID(), Process: rand.Text()}, describe: o.Describe, remote: o.Remote, local: o.Local, follow: o.Follow, notify: o.Notify, log: o.Logger, now: o.Now,
		poll: cmp.Or(o.Poll, 15*time.Second), changed: make(chan struct{}, 1), state: o.Local.State(),
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.notify == nil {
		m.notify = func(Event, int64, string) {}
	}
	if o.Traffic == nil {
		o.Traffic = func(func(any, rollout.Counts)) {}
	}
	m.trials = &trials{id: m.id, clock: m.now, meter: rollout.NewMeter(o.Traffic), describe: m.describe, notify: m.notify, changed: m.Changed, log: m.log, began: make(chan struct{}, 1)}
	if o.Local.Position() != nil {
		var err error
		if m.position, err = positionOf(o.Local); err != nil {
			return nil, err
		}
	} else if m.state.Revision() > 0 {
		return nil, fmt.Errorf("the data directory holds revision %d of a gateway without a fleet: start with an empty --data-dir, and apply the configuration to the fleet", m.state.Revision())
	}
	m.kept = kept{m.state, m.position}
	m.status.Instance, m.status.Copy = m.position.Instance, m.state.Revision()
	m.status.Unreachable = notContacted
	m.tickets = newTicketSharer(m, o)
	return m, nil
}

// notContacted is the reason until the first read.
const notContacted = "no request was sent to it yet"

// State returns the state that was committed or followed last.
func (m *Member) State() *store.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// Status returns the current status of the member.
func (m *Member) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// writable returns the head to commit after, or an error that says why the
// member cannot commit.
func (m *Member) writable() (*etcd.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.status.Diverged != "":
		return nil, errors.New(m.status.Diverged)
	case m.head == nil:
		return nil, fmt.Errorf("etcd has not answered since the gateway started: %s", m.status.Unreachable)
	}
	return m.head, nil
}

// Commit commits a draft to etcd, and to the copy in bolt. When it returns nil, a quorum has
// the draft. It returns ErrBehind if the draft's base is not the head, and an
// *etcd.UnknownError if no quorum says whether the draft was committed.
func (m *Member) Commit(d *store.Draft, r *revisions.Record) error {
	base, err := m.writable()
	if err != nil {
		return err
	}
	if base.Revision() != d.Base().Revision() {
		return ErrBehind
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTime)
	defer cancel()
	head, err := m.remote.Commit(ctx, base, d, r)
	if err != nil {
		return m.failed(err)
	}
	m.moved(head, d.State(), head.ID())
	m.keep([]*revisions.Record{r}, r.Pending)
	return nil
}

// MayTakeEffect reports whether a commit that failed with err may still take effect.
func MayTakeEffect(err error) bool { return errors.As(err, new(*etcd.UnknownError)) }

// failed returns the error of a commit.
func (m *Member) failed(err error) error {
	switch {
	case errors.Is(err, etcd.ErrConflict):
		return ErrBehind
	case errors.Is(err, etcd.ErrNoSpace):
		return err // etcd answers
	}
	m.unreachable(err)
	return err
}

// Pending returns nil, because Sync reports the pending revision of the fleet.
func (m *Member) Pending() *adminv1.Pending { return nil }

// EndPending stores in etcd that no revision is pending, and replaces the revision if r is
// not nil. Its errors are those of Commit.
func (m *Member) EndPending(r *adminv1.Revision) error {
	base, err := m.writable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTime)
	defer cancel()
	head, err := m.remote.Amend(ctx, base, r)
	if err != nil {
		return m.failed(err)
	}
	m.moved(head, m.State(), head.ID())
	var records []*revisions.Record
	if r != nil {
		records = append(records, &revisions.Record{Revision: r})
	}
	m.keep(records, nil)
	return nil
}

// moved records the head, and a state with the ID of its commit, as those of the member.
func (m *Member) moved(h *etcd.Head, state *store.State, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.head, m.state = h, state
	m.position = positionAt(h)
	m.position.ID = id
	m.contact(h)
}

// contact records that etcd has answered. The caller holds mu.
func (m *Member) contact(h *etcd.Head) {
	if m.status.Unreachable != "" {
		m.log.Info("etcd answers", "revision", h.Revision())
		m.notify(Connected, h.Revision(), fmt.Sprintf("etcd answers, and its latest revision is %d", h.Revision()))
	}
	m.status.Unreachable, m.status.Instance = "", h.Instance
	m.status.Head, m.status.Since, m.status.Contacted = h.Revision(), h.Since, time.Now()
}

// unreachable records that etcd did not answer.
func (m *Member) unreachable(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if message := err.Error(); m.status.Unreachable != message {
		m.log.Warn("etcd does not answer: the gateway serves what it has and refuses writes", "revision", m.state.Revision(), "error", message)
		if m.status.Unreachable == "" || m.status.Unreachable == notContacted {
			m.notify(Disconnected, 0, message)
		}
		m.status.Unreachable = message
	}
}

// Changed makes the member report the status of the gateway to the fleet soon. It does not
// block. A nil member does nothing.
func (m *Member) Changed() {
	if m == nil {
		return
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// keep writes the current state to the copy in bolt. A failure does not undo what the fleet
// has committed: the copy is stale until a later attempt succeeds.
func (m *Member) keep(records []*revisions.Record, pending *adminv1.Pending) {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	m.mu.Lock()
	state, at, stale := m.state, m.position, m.status.Stale != ""
	m.mu.Unlock()
	if stale {
		return // retryCopy writes it soon, with the records that the copy lacks
	}
	m.write(state, at, records, pending)
}

// write is keep for a state and its position. The caller holds keeping.
func (m *Member) write(state *store.State, at position, records []*revisions.Record, pending *adminv1.Pending) {
	if m.lent {
		return
	}
	m.mu.Lock()
	was := m.kept
	m.mu.Unlock()
	encoded, err := json.Marshal(at)
	if err == nil {
		err = m.local.Follow(bolt.Copy{State: state, Changed: state.Changed(was.state), Records: records, Pending: pending, Position: encoded})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.log.Error("cannot write the last good copy: it is older than the live revision", "copy", was.state.Revision(), "revision", state.Revision(), "error", err)
		m.status.Stale = err.Error()
		return
	}
	m.kept = kept{state, at}
	m.status.Stale, m.status.Copy = "", state.Revision()
}

// Lend closes the copy for another process, which also becomes the member.
func (m *Member) Lend() error {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	err := m.local.Lend()
	m.lent = err == nil
	return err
}

// Reclaim opens the copy again. The other process has ended, perhaps after it claimed the ID.
func (m *Member) Reclaim() error {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	if err := m.local.Reclaim(); err != nil {
		return err
	}
	m.lent, m.claimed = false, false
	m.Changed()
	return nil
}

// Give leaves the copy to the other process.
func (m *Member) Give() error {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	return m.local.Give()
}

// Close closes both stores.
func (m *Member) Close() error { return errors.Join(m.remote.Close(), m.local.Close()) }
