package fleet

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var (
	errLent = errors.New("a new process is taking over the gateway")
	errLost = errors.New("the lease of the gateway ended, or another process claimed its ID")
)

// A claimer claims the ID of a member in the fleet.
type claimer struct{ m *Member }

// claim claims the ID. While another gateway has the ID, claim reports the duplicate.
func (c claimer) claim(ctx context.Context, head *etcd.Head) (*etcd.Presence, error) {
	present, err := c.join(ctx)
	if taken, ok := errors.AsType[*etcd.TakenError](err); ok {
		present, err = c.await(ctx, head, taken)
	}
	if err == nil {
		c.setDuplicate(nil)
	}
	return present, err
}

// join claims the ID. The first claim after the start or Reclaim also succeeds if a process with the
// same data directory has the ID: that process has ended or hands over to this one. Later, such a
// process runs on a clone of the directory.
func (c claimer) join(ctx context.Context) (*etcd.Presence, error) {
	m := c.m
	m.keeping.Lock()
	restarted := !m.claimed
	m.keeping.Unlock()
	present, err := m.remote.Join(ctx, m.id, m.claim, restarted)
	if err == nil {
		m.keeping.Lock()
		defer m.keeping.Unlock()
		m.claimed = true
	}
	return present, err
}

// await reports that another gateway has the ID, and claims the ID once it is free.
func (c claimer) await(ctx context.Context, head *etcd.Head, taken *etcd.TakenError) (*etcd.Presence, error) {
	m := c.m
	c.setDuplicate(taken)
	content, err := proto.Marshal(&adminv1.DuplicateGateway{ProcessId: m.claim.Process, Address: m.describe().GetAddress(), NoticeTime: timestamppb.Now()})
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	report, err := m.remote.Duplicate(waiting, head, m.id, m.claim.Process, content)
	if err != nil {
		return nil, err
	}
	defer func() {
		report.Leave()
		cancel()
		<-report.Lost()
	}()
	for {
		if err := c.wait(waiting, taken, report); err != nil {
			return nil, err
		}
		present, err := c.join(ctx)
		if !errors.As(err, &taken) {
			return present, err
		}
		c.setDuplicate(taken)
	}
}

// wait waits until the claim of the other gateway may have changed, or for the time of a poll. It
// returns an error if this gateway must stop reporting the duplicate.
func (c claimer) wait(ctx context.Context, taken *etcd.TakenError, report *etcd.Presence) error {
	m := c.m
	polled, cancel := context.WithTimeout(ctx, m.poll)
	defer cancel()
	if err := m.remote.WaitClaim(polled, taken); err != nil {
		pause(polled, maxBackoff) // the watch failed
	}
	if m.isLent() {
		return errLent
	}
	select {
	case <-report.Lost():
		return errLost
	default:
	}
	_, err := m.writable()
	return err
}

// setDuplicate records which gateway has the ID; nil: this one.
func (c claimer) setDuplicate(taken *etcd.TakenError) {
	m := c.m
	reason := ""
	if taken != nil {
		other := "another gateway uses"
		if taken.By.Directory == m.claim.Directory {
			other = "a process with a copy of this data directory uses"
		}
		reason = fmt.Sprintf("%s the ID %q in the fleet. The fleet lists that gateway and not this one, which serves and follows. Start each gateway with a --gateway-id of its own", other, m.id)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case reason == m.status.Duplicate:
	case reason == "":
		m.log.Info("the gateway has claimed its ID: no other gateway uses it now", "gateway_id", m.id)
	default:
		m.log.Error("two gateways use the same ID", "gateway_id", m.id, "error", reason)
		m.notify(Duplicate, 0, reason)
	}
	m.status.Duplicate = reason
}

// isLent reports whether another process owns the copy.
func (m *Member) isLent() bool {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	return m.lent
}

// awaitReclaim waits while another process owns the copy, or until ctx ends.
func (c claimer) awaitReclaim(ctx context.Context) {
	for c.m.isLent() {
		select {
		case <-ctx.Done():
			return
		case <-c.m.changed: // by Reclaim
		}
	}
}
