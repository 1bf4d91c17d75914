package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

// ErrOccupied reports that the prefix holds a fleet with another configuration.
var ErrOccupied = errors.New("the prefix holds a fleet with another configuration")

// Import makes a state of another store the first content of an empty fleet, which it
// creates if necessary. records are those of the latest revisions, oldest first and
// without gaps; the last one made the state. The head changes once, at the end: an import
// that was interrupted has no effect, and can be repeated. Importing the content that the
// fleet has already changes nothing.
func (s *Store) Import(ctx context.Context, state *store.State, records []*revisions.Record) (*Head, error) {
	base, err := s.Head(ctx)
	if errors.Is(err, ErrEmpty) {
		base, err = s.Create(ctx)
	}
	switch {
	case err != nil:
		return nil, err
	case base.Revision() == state.Revision() && base.Sum == sumOf(state):
		return base, nil
	case base.Revision() > 0:
		return nil, ErrOccupied
	case len(records) == 0 || records[len(records)-1].Revision.GetRevision() != state.Revision():
		return nil, fmt.Errorf("the record of revision %d is missing", state.Revision())
	}
	id, sealer := rand.Text(), base.key.sealer
	next := *base
	next.Since, next.Sum = s.now(), sumOf(state)
	discard := func() {
		for _, r := range records {
			s.discard(revisionPrefix, r.Revision.GetRevision(), id)
		}
		s.discard(checkpointPrefix, state.Revision(), id)
	}
	steps := stepsTo(state, records)
	for i, r := range records {
		content, err := encodeRecord(r, steps[i])
		if err == nil {
			var b Blob
			if b, err = s.write(ctx, sealer, revisionPrefix, r.Revision.GetRevision(), id, content); err == nil {
				next.Records = append(next.Records, b)
				continue
			}
		}
		discard()
		return nil, err
	}
	if next.Checkpoint, err = s.checkpoint(ctx, sealer, state, id); err != nil {
		discard()
		return nil, err
	}
	next.trim(s.history)
	head, err := s.swap(ctx, base, &next, id)
	if err != nil && !errors.As(err, new(*UnknownError)) {
		discard()
	}
	return head, err
}

// stepsTo returns the step of each record. The last record made the state.
func stepsTo(state *store.State, records []*revisions.Record) []store.Step {
	steps := make([]store.Step, len(records))
	for i := len(records) - 1; i >= 0; i-- {
		revision := records[i].Revision.GetRevision()
		steps[i] = store.Step{Revision: revision}
		back := store.Step{Revision: revision - 1}
		for _, p := range records[i].Priors {
			if now := state.Get(p.Ref.Kind, p.Ref.Name); now != nil {
				steps[i].Puts = append(steps[i].Puts, now)
			} else {
				steps[i].Deletes = append(steps[i].Deletes, p.Ref)
			}
			if p.Resource != nil {
				back.Puts = append(back.Puts, p.Resource)
			} else {
				back.Deletes = append(back.Deletes, p.Ref)
			}
		}
		state = state.Advance(back)
	}
	return steps
}

// Whole reads the state of the head and the stored records that lead to it. It fails if a
// revision waits to be confirmed.
func (s *Store) Whole(ctx context.Context) (*Reading, error) {
	for {
		h, err := s.Head(ctx)
		if err != nil {
			return nil, err
		}
		pending, err := h.Pending()
		switch {
		case err != nil:
			return nil, err
		case pending != nil:
			return nil, fmt.Errorf("revision %d waits to be confirmed: confirm it or roll back, then try again", pending.GetRevision())
		}
		reading, err := s.Read(ctx, h, Position{State: new(store.State)})
		if errors.Is(err, ErrMoved) {
			continue
		}
		return reading, err
	}
}
