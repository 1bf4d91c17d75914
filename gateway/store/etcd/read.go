package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// ErrMoved reports that the head changed during a read, and that records to which it
// referred were deleted. Read the head again.
var ErrMoved = errors.New("the head has moved")

// A Position is a revision that a gateway has: its state, and the ID of its commit.
type Position struct {
	State *store.State
	ID    string
}

// A Reading is the content that a head refers to.
type Reading struct {
	Head  *Head
	State *store.State // the state of the revision in force

	// Records are the records of the revisions after the position, oldest first.
	// Complete says that no record is missing: the first record follows the position.
	Records  []*Record
	Complete bool

	// Before is the position before the revision in force. Its State is nil if the read
	// began after that position.
	Before Position
}

// Read reads the state of a head and the records after a position.
func (s *Store) Read(ctx context.Context, h *Head, from Position) (*Reading, error) {
	out := &Reading{Head: h}
	next, known := h.Find(from.State.Revision(), from.ID)
	state, id := from.State, from.ID
	var sum uint64
	if known {
		sum = sumOf(state)
	} else {
		next, state, id = 0, new(store.State), ""
		if h.Checkpoint.Revision > 0 {
			content, _, err := s.blob(ctx, h, checkpointPrefix, h.Checkpoint)
			if err != nil {
				return nil, err
			}
			checkpoint, err := decode(h.Checkpoint.Revision, content)
			if err != nil {
				return nil, fmt.Errorf("etcd: the checkpoint of revision %d: %w", h.Checkpoint.Revision, err)
			}
			sum, state, id = change(state, checkpoint.Step), state.Advance(checkpoint.Step), h.Checkpoint.ID
		}
	}
	for _, b := range h.Records[next:] {
		record, err := s.record(ctx, h, b)
		if err != nil {
			return nil, err
		}
		out.Records = append(out.Records, record)
		if b.Revision > state.Revision() {
			out.Before = Position{state, id}
			sum, state, id = sum+change(state, record.Step), state.Advance(record.Step), b.ID
		}
	}
	if sum != h.Sum || state.Revision() != h.Revision() {
		return nil, fmt.Errorf("etcd: the stored resources are not those of revision %d: a record is missing or damaged", h.Revision())
	}
	out.State, out.Complete = state, known
	return out, nil
}

// blob reads a blob that the head refers to, like read.
func (s *Store) blob(ctx context.Context, h *Head, kind string, b Blob) (content, amended []byte, err error) {
	content, amended, err = s.read(ctx, h.key.sealer, kind, b)
	if !errors.Is(err, errGone) {
		return content, amended, err
	}
	now, err := s.Head(ctx)
	switch {
	case err != nil:
		return nil, nil, err
	case now.Mod != h.Mod:
		return nil, nil, ErrMoved
	}
	return nil, nil, fmt.Errorf("etcd: a chunk of revision %d is missing: etcd was damaged or changed by hand", b.Revision)
}

// record reads the record of a revision.
func (s *Store) record(ctx context.Context, h *Head, b Blob) (*Record, error) {
	content, amended, err := s.blob(ctx, h, revisionPrefix, b)
	if err != nil {
		return nil, err
	}
	r, err := decode(b.Revision, content)
	if err == nil && amended != nil {
		r.Revision = new(adminv1.Revision)
		if amended, err = h.key.sealer.Open(b.amendedPlace(), amended); err == nil {
			err = proto.Unmarshal(amended, r.Revision)
		}
	}
	if err == nil && r.Revision.GetRevision() != b.Revision {
		err = fmt.Errorf("it describes revision %d", r.Revision.GetRevision())
	}
	if err != nil {
		return nil, fmt.Errorf("etcd: the record of revision %d: %w", b.Revision, err)
	}
	return r, nil
}

// Last reads the record of the revision in force. It returns nil for revision 0.
func (s *Store) Last(ctx context.Context, h *Head) (*Record, error) {
	if h.Revision() == 0 {
		return nil, nil
	}
	return s.record(ctx, h, h.last())
}

// Record reads the record of a revision that the head lists. It returns nil for another
// revision.
func (s *Store) Record(ctx context.Context, h *Head, revision int64) (*Record, error) {
	i := slices.IndexFunc(h.Records, func(b Blob) bool { return b.Revision == revision })
	if i < 0 {
		return nil, nil
	}
	return s.record(ctx, h, h.Records[i])
}

// sumOf returns the sum over all resources of a state.
func sumOf(s *store.State) (sum uint64) {
	for _, r := range s.All() {
		sum += fingerprint(r)
	}
	return sum
}
