package etcd

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// ErrConflict reports that another gateway changed the head first. Nothing was changed.
var ErrConflict = errors.New("another gateway changed the configuration first")

// An UnknownError reports that a commit was sent, but that no quorum said whether it took
// effect. It may take effect later.
type UnknownError struct{ Err error }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no quorum of etcd says whether the change was made: %v", e.Err)
}

func (e *UnknownError) Unwrap() error { return e.Err }

// maxRecordBytes bounds the total size of the records that a head lists, except the latest.
const maxRecordBytes = 64 << 20

// sweptRecords is how many of the latest revisions a commit searches for chunks that nothing
// refers to. Writers that lost the race for a revision and died wrote them, perhaps when later
// revisions were in force. Chunks of older revisions are deleted with the records.
const sweptRecords = 32

const (
	settleTime  = 10 * time.Second       // bounds how long a commit tries to find out its outcome
	settleEvery = 200 * time.Millisecond // the pause between two tries
)

// Commit makes the draft the revision after base, and returns the new head. When it
// returns a head, a quorum has the revision. It returns ErrConflict if base is no longer
// the head, and an *UnknownError if no quorum says whether the draft was committed.
func (s *Store) Commit(ctx context.Context, base *Head, d *store.Draft, r *revisions.Record) (*Head, error) {
	revision, id, sealer := d.State().Revision(), rand.Text(), base.key.sealer
	if revision != base.Revision()+1 {
		return nil, ErrConflict
	}
	step := d.Step()
	content, err := encodeRecord(r, step)
	if err != nil {
		return nil, err
	}
	written, err := s.write(ctx, sealer, revisionPrefix, revision, id, content)
	if err != nil {
		s.discard(revisionPrefix, revision, id)
		return nil, err
	}
	next := base.after(written, s.history, s.now())
	next.Sum = base.Sum + change(d.Base(), step)
	if err := next.await(r.Pending); err != nil {
		return nil, err
	}
	// While a revision is rolled out, gateways must be able to read the state before it.
	checkpointed := r.Pending.GetRollout() == nil && next.needsCheckpoint(s.checkpointEvery)
	if checkpointed {
		if next.Checkpoint, err = s.checkpoint(ctx, sealer, d.State(), id); err != nil {
			s.discard(revisionPrefix, revision, id)
			s.discard(checkpointPrefix, revision, id)
			return nil, err
		}
		next.trim(s.history)
	}
	made, err := s.swap(ctx, base, next, id)
	if err == nil || errors.As(err, new(*UnknownError)) {
		return made, err
	}
	s.discard(revisionPrefix, revision, id)
	if checkpointed {
		s.discard(checkpointPrefix, revision, id)
	}
	return nil, err
}

// Amend stores that no revision is pending, and replaces the revision in force if r is not
// nil.
func (s *Store) Amend(ctx context.Context, base *Head, r *adminv1.Revision) (*Head, error) {
	next := *base
	next.Waiting, next.Amendment = nil, rand.Text()
	var also []clientv3.Op
	if r != nil {
		at, err := s.amended(base, r)
		if err != nil {
			return nil, err
		}
		also = append(also, at)
	}
	return s.swap(ctx, base, &next, "", also...)
}

// amended returns the operation that replaces the revision in force.
func (s *Store) amended(base *Head, r *adminv1.Revision) (clientv3.Op, error) {
	b := base.last()
	if r.GetRevision() != b.Revision {
		return clientv3.Op{}, ErrConflict
	}
	plain, err := proto.Marshal(r)
	if err != nil {
		return clientv3.Op{}, err
	}
	return clientv3.OpPut(s.prefix+blobPrefix(revisionPrefix, b.Revision, b.ID)+amendedName, string(base.key.sealer.Seal(b.amendedPlace(), plain))), nil
}

func (b Blob) amendedPlace() seal.Place {
	return seal.Place{Bucket: []byte(amendedName), Key: fmt.Appendf(nil, "%d/%s", b.Revision, b.ID)}
}

// checkpoint writes a whole state.
func (s *Store) checkpoint(ctx context.Context, sealer *seal.Sealer, state *store.State, id string) (Blob, error) {
	content, err := encodeState(state)
	if err != nil {
		return Blob{}, err
	}
	return s.write(ctx, sealer, checkpointPrefix, state.Revision(), id, content)
}

// after returns the head that follows h when a record is added at a time.
func (h *Head) after(b Blob, most int, now time.Time) *Head {
	next := *h
	next.Records = append(slices.Clone(h.Records), b)
	next.Since = now
	next.trim(most)
	return &next
}

// trim drops the oldest records over the limits. It keeps every record that leads from
// the checkpoint to the state in force.
func (h *Head) trim(most int) {
	total := 0
	for _, b := range h.Records {
		total += b.Bytes
	}
	for len(h.Records) > 1 && h.Records[0].Revision <= h.Checkpoint.Revision && (len(h.Records) > most || total > maxRecordBytes) {
		total -= h.Records[0].Bytes
		h.Records = h.Records[1:]
	}
}

// minCheckpoint is the total size that records must exceed before their size causes a
// checkpoint.
const minCheckpoint = 1 << 20

// needsCheckpoint reports whether there are many records after the checkpoint, or
// whether they are larger than the checkpoint.
func (h *Head) needsCheckpoint(every int) bool {
	count, size := 0, 0
	for _, b := range h.Records {
		if b.Revision > h.Checkpoint.Revision {
			count, size = count+1, size+b.Bytes
		}
	}
	return count >= every || size > max(minCheckpoint, h.Checkpoint.Bytes)
}

// swap makes next the head if base is still the head. id identifies the commit in the
// records of next. It is empty if next adds no record; then next has an Amendment of its
// own.
func (s *Store) swap(ctx context.Context, base, next *Head, id string, also ...clientv3.Op) (*Head, error) {
	value, err := next.encode()
	if err != nil {
		return nil, err
	}
	ops := append([]clientv3.Op{clientv3.OpPut(s.prefix+headKey, value)}, also...)
	if id != "" {
		ops = append(ops, s.before(revisionPrefix, next.Oldest()), s.before(checkpointPrefix, next.Checkpoint.Revision))
		ops = append(ops, s.between(revisionPrefix, base.Revision(), base.Records[max(len(base.Records)-sweptRecords, 0):]...)...)
		ops = append(ops, s.between(checkpointPrefix, base.Revision(), base.Checkpoint)...)
	}
	resp, err := s.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.prefix+headKey), "=", base.Mod)}, ops...)
	switch {
	case err != nil:
		return s.settle(ctx, base, next, id, err)
	case !resp.Succeeded:
		return nil, ErrConflict
	}
	next.Mod, next.Read, next.Cluster = resp.Header.GetRevision(), resp.Header.GetRevision(), resp.Header.GetClusterId()
	return next, nil
}

// settle finds out whether a swap whose response was lost took effect. If it did, settle
// returns the head that the swap made, even if the head has changed again since.
func (s *Store) settle(ctx context.Context, base, next *Head, id string, cause error) (*Head, error) {
	// Find out the outcome even if the caller's request has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	for {
		head, err := s.Head(ctx)
		switch {
		case err != nil:
		case head.Mod != base.Mod:
			return head.settled(base, next, id)
		case errors.Is(cause, ErrNoSpace):
			// etcd has answered, so the swap is not on its way. It would refuse a fence too.
			return nil, cause
		default:
			// The swap may still be on its way. Change the head so that it cannot succeed.
			if err := s.fence(ctx, head); err == nil {
				return nil, cause
			}
		}
		select {
		case <-ctx.Done():
			return nil, &UnknownError{cause}
		case <-time.After(settleEvery):
		}
	}
}

// settled returns the head that a swap from base to next made, like settle. h is the current
// head, which a later swap may have made. If the swap did not take effect, settled returns
// ErrConflict.
func (h *Head) settled(base, next *Head, id string) (*Head, error) {
	made := h.Amendment == next.Amendment
	if id != "" {
		made = slices.ContainsFunc(h.Records, func(b Blob) bool { return b.ID == id })
	}
	switch {
	case !made:
		return nil, ErrConflict
	case h.ID() == next.ID():
		return h, nil
	}
	// The current head is of a later revision. It is unknown when next was the head, so
	// next gets the revisions of base. Then a commit after next conflicts, and every read
	// of the head counts as later.
	next.Mod, next.Read, next.Cluster = base.Mod, base.Read, base.Cluster
	return next, nil
}

// fence writes the same head again.
func (s *Store) fence(ctx context.Context, h *Head) error {
	value, err := h.encode()
	if err != nil {
		return err
	}
	resp, err := s.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.prefix+headKey), "=", h.Mod)}, clientv3.OpPut(s.prefix+headKey, value))
	if err == nil && !resp.Succeeded {
		err = ErrConflict
	}
	return err
}

// change returns by how much a step from a state changes the sum over all
// resources.
func change(from *store.State, step store.Step) (sum uint64) {
	for _, r := range step.Puts {
		ref := store.RefOf(r)
		sum += fingerprint(r) - fingerprint(from.Get(ref.Kind, ref.Name))
	}
	for _, ref := range step.Deletes {
		sum -= fingerprint(from.Get(ref.Kind, ref.Name))
	}
	return sum
}

// fingerprint returns the contribution of a resource to the sum, which detects a record
// that was left out or applied twice. It uses the etag instead of the content, which other
// versions may marshal differently. The seal protects the content.
func fingerprint(r store.Resource) uint64 {
	if r == nil {
		return 0
	}
	digest := sha256.Sum256(fmt.Appendf(nil, "%d/%s/%s/%d", store.KindOf(r), r.GetName(), r.GetEtag(), r.GetRevision()))
	return binary.BigEndian.Uint64(digest[:])
}
