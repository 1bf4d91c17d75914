package fleet

import (
	"context"
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

// report reports the status of this gateway to the fleet until ctx ends.
func (m *Member) report(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		if err := m.reportOnce(ctx); err != nil && ctx.Err() == nil {
			m.log.Debug("cannot report the status of this gateway to the fleet", "error", err)
		}
		if time.Since(began) > describeEvery {
			failures = 0
		}
		pause(ctx, backoff(failures))
	}
}

// reportOnce reports until ctx ends or a request fails.
func (m *Member) reportOnce(ctx context.Context) error {
	head, err := m.writable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	present, err := m.remote.Join(ctx, m.id)
	if err != nil {
		return err
	}
	defer func() {
		present.Leave()
		cancel()
		<-present.Lost()
	}()
	if err := m.forgetOld(ctx, head); err != nil {
		return err
	}
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	var last *adminv1.Gateway
	var at time.Time
	for {
		status := m.Status()
		if status.Diverged != "" { // it serves other revisions than the fleet, perhaps under the same numbers
			return fmt.Errorf("%w: %s", errDiverged, status.Diverged)
		}
		m.trials.meter.Tick(time.Now())
		now := m.describe()
		now.ProcessId, now.Rollout = m.process, m.trials.report(now.GetProblems(), time.Now())
		if now.Error = status.Behind; !proto.Equal(now, last) || time.Since(at) >= describeEvery {
			last, at = now, time.Now()
			sent := proto.Clone(now).(*adminv1.Gateway)
			sent.LastSeenTime = timestamppb.New(at)
			content, err := proto.Marshal(sent)
			if err == nil {
				err = m.remote.Describe(ctx, head, m.id, content)
			}
			if err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-present.Lost():
			return errors.New("the lease of the gateway ended")
		case <-m.changed:
		case <-tick.C:
		}
	}
}

// forgetOld deletes the descriptions of gateways that stopped long ago.
func (m *Member) forgetOld(ctx context.Context, head *etcd.Head) error {
	all, err := m.gateways(ctx, head)
	if err != nil {
		return err
	}
	for _, g := range all {
		if !g.GetConnected() && time.Since(g.GetLastSeenTime().AsTime()) > forgetAfter {
			if err := m.remote.Forget(ctx, g.GetGatewayId()); err != nil {
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
		all = append(all, g)
	}
	return all, nil
}
