package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/tickets"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
)

const (
	// maxTicketDelay bounds by how much a member delays the rotation of the ticket secrets, so
	// that the members do not all write at once.
	maxTicketDelay = 10 * time.Minute

	// maxTicketRaces bounds how often a member reads the ticket secrets again because another
	// member has just written them. The next read of the head tries again.
	maxTicketRaces = 5
)

// A ticketSharer shares the secrets of TLS tickets with the fleet. Any member makes and
// rotates them, by compare-and-swap. Its methods are called with Member.syncing held.
type ticketSharer struct {
	m      *Member
	shared *tickets.Shared // nil: the member takes no part
	now    func() time.Time
	delay  time.Duration // how much later than necessary the member rotates

	list   tickets.List // the secrets in etcd, as last read
	mod    int64        // etcd's revision of their last change; 0: none
	unkept []byte       // the secrets that the copy in bolt lacks; nil: it has them
}

// newTicketSharer returns a ticketSharer that uses the secrets in the copy until etcd
// answers.
func newTicketSharer(m *Member, o Options) *ticketSharer {
	t := &ticketSharer{m: m, shared: o.Tickets, now: m.now, delay: rand.N(maxTicketDelay)}
	if t.shared == nil {
		return t
	}
	known, err := tickets.ParseList(o.Local.Tickets())
	if err != nil { // written by a newer version; the gateway uses keys of its own until etcd answers
		t.m.log.Warn("cannot use the TLS ticket keys in the data directory", "error", err)
	}
	t.use(known)
	return t
}

// use makes secrets those of the gateway. Without any it keeps what it has.
func (t *ticketSharer) use(l tickets.List) {
	if len(l) == 0 {
		return
	}
	t.shared.Set(l)
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	t.m.status.TicketsMade = l.Newest()
}

// sync reads the secrets if they have changed, and rotates them if they are due. If that
// fails, the gateway keeps the secrets that it has.
func (t *ticketSharer) sync(ctx context.Context, head *etcd.Head) {
	if t.shared == nil {
		return
	}
	err := t.update(ctx, head)
	if err == nil {
		err = t.keep()
	}
	if ctx.Err() != nil {
		return
	}
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if problem != "" && problem != t.m.status.TicketsError {
		t.m.log.Warn("cannot share TLS ticket keys with the fleet: the gateway uses those that it has", "error", problem)
	}
	t.m.status.TicketsError = problem
}

func (t *ticketSharer) update(ctx context.Context, head *etcd.Head) error {
	stale := head.Tickets != t.mod
	for range maxTicketRaces {
		if stale {
			if err := t.read(ctx, head); err != nil {
				return err
			}
		}
		now := t.now()
		if !t.list.Due(now.Add(-t.delay)) {
			return nil
		}
		err := t.write(ctx, head, t.list.Rotated(now))
		if !errors.Is(err, etcd.ErrConflict) {
			return err
		}
		stale = true
	}
	return nil // other members change them all the time
}

// read reads the secrets from etcd.
func (t *ticketSharer) read(ctx context.Context, head *etcd.Head) error {
	content, mod, err := t.m.remote.Tickets(ctx, head)
	if err != nil {
		return err
	}
	l, err := tickets.ParseList(content)
	if err != nil {
		return err
	}
	t.list, t.mod = l, mod
	if len(l) > 0 {
		t.unkept = content
		t.use(l)
	}
	return nil
}

// write replaces the secrets in etcd.
func (t *ticketSharer) write(ctx context.Context, head *etcd.Head, l tickets.List) error {
	content, err := l.Encode()
	if err != nil {
		return err
	}
	mod, err := t.m.remote.PutTickets(ctx, head, content, t.mod)
	if err != nil {
		return err
	}
	t.m.log.Info("made a new secret for the TLS tickets of the fleet", "secrets", len(l))
	t.list, t.mod, t.unkept = l, mod, content
	t.use(l)
	return nil
}

// keep writes the secrets to the copy in bolt, unless it has them.
func (t *ticketSharer) keep() error {
	t.m.keeping.Lock()
	defer t.m.keeping.Unlock()
	if t.unkept == nil || t.m.lent {
		return nil
	}
	if err := t.m.local.KeepTickets(t.unkept); err != nil {
		return fmt.Errorf("the copy in the data directory: %w", err)
	}
	t.unkept = nil
	return nil
}
