package bolt

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// positionKey holds the position of the current revision in the store of a fleet.
var positionKey = []byte("position")

// A Copy is a state of another store. This store keeps it as the last good
// copy.
type Copy struct {
	State   *store.State
	Changed []store.Ref // the resources that differ from the present copy

	// Records are the records of the latest revisions, oldest first and without gaps.
	// Records that do not continue the stored records replace all of them. Records that do
	// not end with the revision of State are dropped.
	Records []*revisions.Record

	Pending  *adminv1.Pending
	Position []byte // the position of State in the other store
}

// Follow makes a copy durable, like Commit.
func (s *Store) Follow(c Copy) error {
	kept := s.kept
	err := s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if err := s.put(tx, c.State, c.Changed); err != nil {
			return err
		}
		var err error
		if kept.records, err = s.followRecords(tx, c); err != nil {
			return err
		}
		if err := putPending(meta, s.codec, c.Pending); err != nil {
			return err
		}
		return meta.Put(positionKey, s.codec.record(metaBucket, positionKey, c.Position))
	})
	if err == nil {
		s.kept = kept
		s.state, s.position = c.State, c.Position
	}
	return err
}

// followRecords writes the records of a copy, and returns the records that are stored
// afterward.
func (s *Store) followRecords(tx *bbolt.Tx, c Copy) ([]recordSize, error) {
	kept, last := s.kept, int64(0)
	if n := len(kept.records); n > 0 {
		last = kept.records[n-1].revision
	}
	records := c.Records
	if n := len(records); n > 0 && records[n-1].Revision.GetRevision() != c.State.Revision() {
		records = nil
	}
	if len(records) > 0 && records[0].Revision.GetRevision() == last && last == c.State.Revision() {
		// The current revision was confirmed.
		at := revisionKeyOf(last)
		record, err := s.codec.encode(revisionsBucket, at, records[0].Revision)
		if err != nil {
			return nil, err
		}
		return kept.records, putHistory(tx, at, record)
	}
	if last == c.State.Revision() && len(records) == 0 {
		return kept.records, nil
	}
	if len(records) == 0 || records[0].Revision.GetRevision() != last+1 {
		if err := tx.DeleteBucket(historyBucket); err != nil {
			return nil, err
		}
		if err := createHistory(tx); err != nil {
			return nil, err
		}
		kept.records = nil
	}
	for _, r := range records {
		var err error
		if kept.records, err = kept.add(tx, s.codec, r); err != nil {
			return nil, err
		}
	}
	return kept.records, nil
}

// Position returns the position that Follow stored last, or nil: the database is not a copy.
func (s *Store) Position() []byte { return s.position }

// Detach makes a copy the store of a gateway without a fleet.
func (s *Store) Detach() error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		return errors.Join(meta.Delete(positionKey), meta.Delete(ticketsKey))
	})
	if err == nil {
		s.position, s.tickets = nil, nil
	}
	return err
}

// readPosition reads what Follow stored.
func readPosition(meta *bbolt.Bucket, c codec) ([]byte, error) {
	record := meta.Get(positionKey)
	if record == nil {
		return nil, nil
	}
	content, err := c.content(metaBucket, positionKey, record)
	if err != nil {
		return nil, fmt.Errorf("the position in the fleet: %w", err)
	}
	return bytes.Clone(content), nil
}
