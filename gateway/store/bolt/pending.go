package bolt

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Pending returns the revision that was still unconfirmed when the store was opened, or
// nil. The process that committed it ended before it was confirmed.
func (s *Store) Pending() *adminv1.Pending { return s.pending }

// EndPending durably records that no revision is pending. If r is not nil, it
// replaces the revision with the same number.
func (s *Store) EndPending(r *adminv1.Revision) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if r != nil {
			at := revisionKeyOf(r.GetRevision())
			record, err := s.codec.encode(revisionsBucket, at, r)
			if err != nil {
				return err
			}
			if err := putHistory(tx, at, record); err != nil {
				return err
			}
		}
		return putPending(tx.Bucket(metaBucket), s.codec, nil)
	})
}

// putPending stores the revision that waits to be confirmed, or removes it if p is nil.
func putPending(meta *bbolt.Bucket, c codec, p *adminv1.Pending) error {
	if p == nil {
		return meta.Delete(pendingKey)
	}
	record, err := c.encode(metaBucket, pendingKey, p)
	if err != nil {
		return err
	}
	return meta.Put(pendingKey, record)
}

// readPending reads what putPending stored. Only the current revision can be pending.
func readPending(meta *bbolt.Bucket, c codec, live int64) (*adminv1.Pending, error) {
	record := meta.Get(pendingKey)
	if record == nil {
		return nil, nil
	}
	p := new(adminv1.Pending)
	if err := c.decode(metaBucket, pendingKey, record, p); err != nil {
		return nil, fmt.Errorf("the pending revision: %w", err)
	}
	if p.GetRevision() != live {
		return nil, errors.New("its pending revision is not the current one")
	}
	return p, nil
}
