package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	describeEvery = time.Minute    // without a change
	compareEvery  = time.Second    // how often report looks for a change
	forgetAfter   = 24 * time.Hour // a gateway that is not connected
)

// A reporter reports the status of a member to the fleet, under the ID of the gateway.
type reporter struct {
	m       *Member
	head    *etcd.Head
	present *etcd.Presence // the claim of the ID

	last     *adminv1.Gateway // the latest report under this claim; nil: none
	at       time.Time        // the time of that report
	failures int              // since then
	retry    time.Time        // when the next attempt is due; zero: at once
}

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		claimer{r.m}.awaitReclaim(ctx)
		began := time.Now()
		if err := r.once(ctx); err != nil && ctx.Err() == nil {
			r.m.log.Debug("cannot report the status of this gateway to the fleet", "error", err)
		}
		if time.Since(began) > describeEvery {
			failures = 0
		}
		pause(ctx, backoff(failures))
	}
}

// once reports until ctx ends, or the ID cannot be claimed or is lost. While an upgrade's new process
// starts, the gateway keeps the ID and reports, so that it is always connected.
func (r *reporter) once(ctx context.Context) error {
	m := r.m
	head, err := m.writable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	present, err := claimer{m}.claim(ctx, head)
	if err != nil {
		return err
	}
	cloned := false
	defer func() {
		// The new process of an upgrade replaces the claim, and a clone needs it.
		if !m.isLent() && !cloned {
			present.Leave()
		}
		cancel()
		<-present.Lost()
	}()
	*r = reporter{m: m, head: head, present: present}
	if err := r.forgetOld(ctx); err != nil {
		m.log.Debug("cannot forget gateways that stopped long ago", "error", err)
	}
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	for {
		if err := r.report(ctx); err != nil {
			if cloned = errors.Is(err, etcd.ErrCloned); cloned {
				m.claim.Process = rand.Text() // ListGateways must list the two processes apart
			}
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-present.Lost():
			return errLost
		case <-m.changed:
		case <-tick.C:
		}
	}
}

// report reports the status if it has changed, or is due. It returns an error if the gateway does not
// follow the fleet or has lost its ID. After any other failure the gateway stays connected: it
// serves, and etcd may refuse only writes.
func (r *reporter) report(ctx context.Context) error {
	m, at := r.m, r.m.now()
	status := m.Status()
	if status.Diverged != "" { // it serves other revisions than the fleet, perhaps under the same numbers
		return fmt.Errorf("%w: %s", errDiverged, status.Diverged)
	}
	m.trials.meter.Tick(at)
	now := m.describe()
	now.ProcessId, now.Rollout, now.Error = m.claim.Process, m.trials.report(now.GetProblems(), at), status.Behind
	if at.Before(r.retry) || proto.Equal(now, r.last) && at.Sub(r.at) < describeEvery {
		return nil
	}
	sent := proto.CloneOf(now)
	sent.LastSeenTime = timestamppb.New(at)
	content, err := proto.Marshal(sent)
	if err == nil {
		err = r.present.Describe(ctx, r.head, content)
	}
	switch {
	case errors.Is(err, etcd.ErrDisplaced), errors.Is(err, etcd.ErrCloned):
		return err
	case err != nil:
		m.log.Debug("cannot report the status of this gateway to the fleet", "error", err)
		r.retry = m.now().Add(backoff(r.failures))
		r.failures++
		return nil
	}
	r.last, r.at, r.failures, r.retry = now, at, 0, time.Time{}
	return nil
}

// forgetOld deletes the descriptions of gateways that stopped long ago.
func (r *reporter) forgetOld(ctx context.Context) error {
	all, err := r.m.gateways(ctx, r.head)
	if err != nil {
		return err
	}
	for _, g := range all {
		if !g.GetConnected() && time.Since(g.GetLastSeenTime().AsTime()) > forgetAfter {
			if err := r.m.remote.Forget(ctx, g.GetGatewayId()); err != nil {
				return err
			}
		}
	}
	return nil
}

// ID returns the ID of the gateway.
func (m *Member) ID() string { return m.id }

// Gateways returns the gateways of the fleet by ID, and the latest revision.
func (m *Member) Gateways(ctx context.Context) ([]*adminv1.Gateway, int64, error) {
	if s := m.Status(); s.Diverged != "" {
		return nil, 0, fmt.Errorf("%w: %s", errDiverged, s.Diverged)
	}
	head, err := m.remote.Head(ctx)
	if err != nil {
		return nil, 0, err
	}
	all, err := m.gateways(ctx, head)
	return all, head.Revision(), err
}

// watchPause is how long a watch waits after a change, because many gateways follow a
// revision at the same time.
const watchPause = 100 * time.Millisecond

// WatchGateways calls changed with the gateways of the fleet by ID and the latest revision,
// now and whenever one of them may have changed. It returns when changed returns an error,
// when etcd does not answer, and when ctx ends.
func (m *Member) WatchGateways(ctx context.Context, changed func(all []*adminv1.Gateway, head int64) error) error {
	for {
		if s := m.Status(); s.Diverged != "" {
			return fmt.Errorf("%w: %s", errDiverged, s.Diverged)
		}
		head, err := m.remote.Head(ctx)
		if err != nil {
			return err
		}
		all, err := m.gateways(ctx, head)
		if err != nil {
			return err
		}
		if err := changed(all, head.Revision()); err != nil {
			return err
		}
		m.waitGateways(ctx, head)
		if pause(ctx, watchPause); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// waitGateways waits until the gateways may have changed, or for the time of a poll. If
// the watch fails, the next read finds out whether etcd answers.
func (m *Member) waitGateways(ctx context.Context, h *etcd.Head) {
	ctx, cancel := context.WithTimeout(ctx, m.poll)
	defer cancel()
	if err := m.remote.WaitGateways(ctx, h); err != nil && ctx.Err() == nil {
		m.log.Debug("the watch of the gateways ended", "error", err)
	}
}

func (m *Member) gateways(ctx context.Context, head *etcd.Head) ([]*adminv1.Gateway, error) {
	described, err := m.remote.Gateways(ctx, head)
	if err != nil {
		return nil, err
	}
	var all []*adminv1.Gateway
	for _, d := range described {
		g := new(adminv1.Gateway)
		if err := proto.Unmarshal(d.Content, g); err != nil {
			return nil, fmt.Errorf("the description of gateway %q: %w", d.ID, err)
		}
		g.GatewayId, g.Connected, g.Lag = d.ID, d.Connected, max(head.Revision()-g.GetRevision(), 0)
		for _, content := range d.Duplicates {
			other := new(adminv1.DuplicateGateway)
			if err := proto.Unmarshal(content, other); err != nil {
				return nil, fmt.Errorf("the report of a gateway with the ID %q: %w", d.ID, err)
			}
			g.Duplicates = append(g.Duplicates, other)
		}
		all = append(all, g)
	}
	return all, nil
}
