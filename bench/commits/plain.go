package commits

import (
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
)

// recorded returns a function that commits a draft with the record of its revision, as a
// gateway does.
func recorded(s *bolt.Store) func(*store.Draft) error {
	return func(d *store.Draft) error {
		return s.Commit(d, revisions.NewRecord(d, store.Edit{Comment: "a new key"}, time.Now(), func(store.Ref) string { return "" }))
	}
}

// A plainStore writes only the state, in the same way as gateway/store/bolt: the
// changed records, each with a checksum, their sum and the revision.
type plainStore struct{ db *bbolt.DB }

var resources, meta = []byte("resources"), []byte("meta")

func openPlain(path string) (*plainStore, error) {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{resources, meta} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
	return &plainStore{db}, err
}

func (s *plainStore) Close() error { return s.db.Close() }

func (s *plainStore) commit(d *store.Draft) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, sum := tx.Bucket(resources), fnv.New64a()
		for _, c := range d.Changes() {
			sum.Write(b.Get([]byte(c.Name)))
			record, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(make([]byte, 4), d.State().Get(c.Kind, c.Name))
			if err != nil {
				return err
			}
			binary.BigEndian.PutUint32(record, crc32.Checksum(record[4:], crc32.MakeTable(crc32.Castagnoli)))
			sum.Write(record)
			if err := b.Put([]byte(c.Name), record); err != nil {
				return err
			}
		}
		m := tx.Bucket(meta)
		if err := m.Put([]byte("sum"), binary.BigEndian.AppendUint64(nil, sum.Sum64())); err != nil {
			return err
		}
		return m.Put([]byte("revision"), binary.BigEndian.AppendUint64(nil, uint64(d.State().Revision())))
	})
}
