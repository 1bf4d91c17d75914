package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/fleet"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	"github.com/drawbridge-gateway/drawbridge/gateway/telemetry"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// firstSync bounds how long the start waits for etcd before it serves the last good copy.
const firstSync = 5 * time.Second

// A Fleet makes a gateway share its desired state with others.
type Fleet struct {
	// Etcd locates the state. The gateway sets its Key and History.
	Etcd etcd.Options

	// ID names the gateway in the fleet, and Labels describe it. Empty: the host name, and no
	// labels.
	ID     string
	Labels map[string]string

	// Poll is how often the gateway reads the head without an event. 0: 15s.
	Poll time.Duration
}

// joinFleet returns the store of a gateway in a fleet.
func joinFleet(o Options, db *bolt.Store, g *Gateway) (*fleet.Member, error) {
	id := o.Fleet.ID
	if id == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("the gateway needs an ID in the fleet: %w", err)
		}
		id = host
	}
	at := o.Fleet.Etcd
	at.Key, at.History, at.Now = o.SealKey, o.History, o.now
	remote, err := etcd.Open(at)
	if err != nil {
		return nil, err
	}
	m, err := fleet.New(fleet.Options{
		Remote: remote, Local: db, ID: id, Describe: func() *adminv1.Gateway { return g.describe(o.Fleet.Labels) }, Follow: g.follow,
		Traffic: trafficOf(g), Notify: g.feeds.fleetEvent, Logger: o.Logger.Named("fleet"), Poll: o.Fleet.Poll,
		Tickets: g.compiler.TicketSecrets, Now: o.now,
	})
	if err != nil {
		return nil, errors.Join(err, remote.Close())
	}
	return m, nil
}

// maxDescribed bounds the problems that a gateway reports to the fleet.
const maxDescribed = 20

// describe returns the gateway's description of itself.
func (g *Gateway) describe(labels map[string]string) *adminv1.Gateway {
	snap := g.settled.Load()
	problems := g.problems(snap)
	out := &adminv1.Gateway{
		Labels: labels, Version: g.version, Address: cmp.Or(g.AdminTCPAddress(), g.AdminAddress()),
		Revision: snap.State().Revision(), ProblemCount: int32(len(problems)),
	}
	for _, p := range problems[:min(len(problems), maxDescribed)] {
		out.Problems = append(out.Problems, &adminv1.Problem{Kind: p.Ref.Kind, Name: p.Ref.Name, Reason: p.Reason})
	}
	return out
}

// fleetEvent publishes an event of the member of a fleet.
func (f *feeds) fleetEvent(e fleet.Event, revision int64, message string) {
	types := map[fleet.Event]adminv1.EventType{
		fleet.Connected: adminv1.EventType_EVENT_TYPE_FLEET_CONNECTED, fleet.Disconnected: adminv1.EventType_EVENT_TYPE_FLEET_DISCONNECTED,
		fleet.Diverged: adminv1.EventType_EVENT_TYPE_FLEET_DIVERGED, fleet.Duplicate: adminv1.EventType_EVENT_TYPE_FLEET_DUPLICATE_ID, fleet.RolloutStarted: adminv1.EventType_EVENT_TYPE_ROLLOUT_STARTED,
		fleet.RolloutPromoted: adminv1.EventType_EVENT_TYPE_ROLLOUT_PROMOTED, fleet.RolloutRolledBack: adminv1.EventType_EVENT_TYPE_ROLLOUT_ROLLED_BACK,
	}
	f.event(&adminv1.Event{Type: types[e], Revision: revision, Message: message, Count: 1})
}

// adminFleet returns the fleet for the admin API; nil for a nil member.
func adminFleet(m *fleet.Member) admin.Fleet {
	if m == nil {
		return nil
	}
	return m
}

// catchUp makes the head of the fleet live before the gateway serves, if etcd answers soon.
func (w *writer) catchUp(ctx context.Context) error {
	if w.fleet == nil {
		return nil
	}
	trying, cancel := context.WithTimeout(ctx, firstSync)
	defer cancel()
	if err := w.fleet.Sync(trying); err != nil {
		w.log.Warn("the fleet's head was not read: serving the last good copy", "revision", w.State().Revision(), "error", err)
	}
	return ctx.Err()
}

// fleetStatus returns the fleet status of a gateway that serves a revision, and its
// warnings. It returns nil if m is nil, because there is no fleet.
func fleetStatus(m *fleet.Member, revision int64) (*adminv1.FleetStatus, []*adminv1.Warning) {
	if m == nil {
		return nil, nil
	}
	s := m.Status()
	out := &adminv1.FleetStatus{HeadRevision: s.Head, ConnectionError: s.Unreachable, Diverged: s.Diverged, CopyRevision: s.Copy, CopyError: s.Stale, TicketsError: s.TicketsError, DuplicateId: s.Duplicate}
	if !s.TicketsMade.IsZero() {
		out.TicketsTime = timestamppb.New(s.TicketsMade)
	}
	if !s.Contacted.IsZero() {
		out.ContactTime = timestamppb.New(s.Contacted)
	}
	if s.Head > 0 {
		out.HeadTime = timestamppb.New(s.Since)
	}
	var warnings []*adminv1.Warning
	warn := func(code adminv1.WarningCode, format string, args ...any) {
		warnings = append(warnings, &adminv1.Warning{Code: code, Message: fmt.Sprintf(format, args...)})
	}
	if s.Unreachable != "" {
		since := "since the gateway started"
		if !s.Contacted.IsZero() {
			since = "since " + s.Contacted.UTC().Format("2006-01-02 15:04:05 MST")
		}
		warn(adminv1.WarningCode_WARNING_CODE_FLEET_UNREACHABLE, "etcd has not answered %s, so revision %d may be old, and writes are refused: %s", since, revision, s.Unreachable)
	}
	if s.Diverged != "" {
		warn(adminv1.WarningCode_WARNING_CODE_FLEET_DIVERGED, "%s", s.Diverged)
	}
	if s.Duplicate != "" {
		warn(adminv1.WarningCode_WARNING_CODE_FLEET_DUPLICATE_ID, "%s", s.Duplicate)
	}
	if s.Stale != "" {
		warn(adminv1.WarningCode_WARNING_CODE_COPY_STALE, "the last good copy is of revision %d and cannot be written: %s", s.Copy, s.Stale)
	}
	if s.TicketsError != "" {
		warn(adminv1.WarningCode_WARNING_CODE_FLEET_TICKETS, "the secrets for TLS session tickets cannot be shared with the fleet: %s", s.TicketsError)
	}
	return out, warnings
}

// fleetCounts returns the source of metrics about a member of a fleet; nil for nil.
func fleetCounts(m *fleet.Member) func() telemetry.Fleet {
	if m == nil {
		return nil
	}
	return func() telemetry.Fleet {
		s := m.Status()
		return telemetry.Fleet{Connected: s.Unreachable == "", Diverged: s.Diverged != "", Duplicate: s.Duplicate != "", Head: s.Head, Copy: s.Copy, Contacted: s.Contacted}
	}
}

// maxRaces bounds how often an edit is drafted again because another gateway of the fleet
// committed first.
const maxRaces = 10

// applyAtHead applies an edit at the head of the fleet. If another gateway commits
// first, the revision of that gateway becomes live here, and the edit is drafted again.
func (w *writer) applyAtHead(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error) {
	for range maxRaces {
		if p := w.pending.Load(); p.rollsOut() && p.ends(e) && !e.DryRun {
			return rollouts{w}.revert(ctx, p, e)
		}
		result, err := w.apply(ctx, e, m)
		if !errors.Is(err, fleet.ErrBehind) {
			return result, err
		}
		if err := w.fleet.Sync(ctx); err != nil {
			return nil, invalid.Errorf(invalid.Unavailable, "", "another gateway changed the configuration first, and its change is not live here: %v; nothing was changed", err)
		}
		m = nil
	}
	return nil, errRaces()
}

func errRaces() error {
	return invalid.Errorf(invalid.Conflict, "", "other gateways of the fleet changed the configuration %d times in the meantime: try again", maxRaces)
}

// storeFault returns the fault of a commit that failed.
func (w *writer) storeFault(err error) error {
	if _, refused := errors.AsType[*invalid.Error](err); refused || errors.Is(err, fleet.ErrBehind) {
		return err
	}
	w.log.Error("cannot write to the store", "error", err)
	if fleet.MayTakeEffect(err) {
		return invalid.Errorf(invalid.Unavailable, "", "%v; the change may still take effect: read the configuration before you try again", err)
	}
	return invalid.Errorf(invalid.Unavailable, "", "the store cannot write: %v; nothing was changed", err)
}

// follow makes live what another gateway of the fleet has committed. Resources that cannot be built or
// bound are down.
func (w *writer) follow(ctx context.Context, f *store.Followed) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.stopping, cancel)()
	e := f.Edit(w.State())
	result, err := w.apply(ctx, e, nil)
	w.countApply(e, result, err)
	if err != nil {
		w.log.Error("cannot follow the fleet", "revision", f.State.Revision(), "error", err)
	}
	return err
}

// draftFollowed drafts and compiles a state that another gateway has committed.
func (w *writer) draftFollowed(p *plan) (missing snapshot.Needs) {
	p.draft = p.live.State().Follow(p.edit.Follow.State)
	var faults invalid.List
	p.next, missing = w.compiler.Compile(p.live, p.draft, p.material, &faults)
	if faults.Len() > 0 && missing.None() {
		p.next, missing = w.compiler.Force(p.live, p.draft, p.material)
	}
	return missing
}

// commitFollowed makes the state the last good copy, and makes its pending revision the
// pending revision of this gateway. ended is as for commit.
func (w *writer) commitFollowed(p *plan) (ended bool) {
	f, before := p.edit.Follow, w.pending.Load()
	f.Keep()
	switch {
	case f.Pending == nil:
		return before != nil
	case before == nil || !proto.Equal(before.Pending, f.Pending):
		w.beginPending(f.Pending, f.Within)
	}
	return false
}

// followed notifies watchers of a state that another gateway has committed.
func (f *feeds) followed(next *store.Followed, before *store.State) {
	known := f.InstanceID() == next.Instance
	f.instance.Store(&next.Instance)
	if !next.Complete || !known {
		f.startOver(next.State.Revision())
		if next.State.Revision() != before.Revision() {
			f.event(appliedEvent(store.Update{Revision: next.State.Revision(), Changes: make([]store.Change, len(next.State.Changed(before))), Comment: "followed the fleet"}))
		}
		return
	}
	for _, u := range next.Updates {
		if u.Revision > before.Revision() {
			f.announce(u)
		}
	}
}

// ownFilesOnly reports whether the gateway is in a fleet and the edit only reads files
// again. Files belong to one gateway, so such an edit makes no revision.
func (w *writer) ownFilesOnly(e store.Edit) bool {
	return w.fleet != nil && len(e.Puts)+len(e.Deletes) == 0 && e.Prune == nil && e.Rollback == nil
}

// changes returns the changes of the plan, with resources whose files were reloaded.
func (p *plan) changes() []store.Change {
	all := p.draft.Changes()
	for i, c := range all {
		if slices.Contains(p.reloaded, store.Ref{Kind: c.Kind, Name: c.Name}) {
			all[i].Action = adminv1.ChangeAction_CHANGE_ACTION_UPDATED
		}
	}
	return all
}

// checkAlone fails if the data directory belongs to a fleet.
func checkAlone(o Options, db *bolt.Store) error {
	if o.Fleet == nil && db.Position() != nil {
		return fmt.Errorf("the data directory %s holds a copy of a fleet's configuration: start with --store etcd, or with an empty --data-dir", o.DataDir)
	}
	return nil
}
