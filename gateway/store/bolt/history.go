package bolt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// historyBucket has a bucket for each revision. It maps headKey to the Revision, and a kind and
// name to the resource before the revision. A commit therefore writes few pages besides its own
// records.
var (
	historyBucket = []byte("history")
	headKey       = []byte{0} // no kind is 0
)

// The purposes of the records. Sealed values are bound to them and to the keys of
// revisionKeyOf and priorKey. In format 2, the purposes were names of buckets
// with these keys.
var (
	revisionsBucket = []byte("revisions")
	priorsBucket    = []byte("priors")
)

// maxHistoryBytes limits the total size of the history's records, except the latest one.
const maxHistoryBytes = 64 << 20

// A history tracks the records in the database, oldest first. Their revisions have no
// gaps, and the last one is the current revision.
type history struct {
	most    int // maximum number of records
	records []recordSize
}

type recordSize struct {
	revision int64
	bytes    int
}

func createHistory(tx *bbolt.Tx) error {
	_, err := tx.CreateBucket(historyBucket)
	return err
}

// recordsOf returns the bucket of a revision, or nil if its record is not stored.
func recordsOf(tx *bbolt.Tx, revision int64) *bbolt.Bucket {
	return tx.Bucket(historyBucket).Bucket(revisionKeyOf(revision))
}

// putHistory writes the record with a key of revisionKeyOf or priorKey.
func putHistory(tx *bbolt.Tx, key, record []byte) error {
	b, err := tx.Bucket(historyBucket).CreateBucketIfNotExists(key[:8])
	if err != nil {
		return err
	}
	if len(key) == 8 {
		return b.Put(headKey, record)
	}
	return b.Put(key[8:], record)
}

// eachHistoryRecord calls f with the purpose, key and content of each record of the
// history. The Revision comes before the priors of a revision, and revisions in order.
func eachHistoryRecord(tx *bbolt.Tx, format uint64, f func(purpose, key, record []byte) error) error {
	if format == 2 {
		return eachOldHistoryRecord(tx, f)
	}
	history := tx.Bucket(historyBucket)
	if history == nil {
		return errors.New("the bucket of its history is missing")
	}
	return history.ForEach(func(revision, value []byte) error {
		b := history.Bucket(revision)
		if b == nil || len(revision) != 8 {
			return fmt.Errorf("the key %x is not a revision", revision)
		}
		return b.ForEach(func(key, record []byte) error {
			if bytes.Equal(key, headKey) {
				return f(revisionsBucket, revision, record)
			}
			return f(priorsBucket, slices.Concat(revision, key), record)
		})
	})
}

// eachOldHistoryRecord is eachHistoryRecord for a database of format 2.
func eachOldHistoryRecord(tx *bbolt.Tx, f func(purpose, key, record []byte) error) error {
	for _, purpose := range [][]byte{revisionsBucket, priorsBucket} {
		b := tx.Bucket(purpose)
		if b == nil {
			return errors.New("the buckets of its history are missing")
		}
		if err := b.ForEach(func(key, record []byte) error { return f(purpose, key, record) }); err != nil {
			return err
		}
	}
	return nil
}

// upgradeHistory brings the history of a database of an older format to the current one.
func upgradeHistory(tx *bbolt.Tx, format uint64) error {
	if err := createHistory(tx); err != nil || format < 2 {
		return err
	}
	err := eachOldHistoryRecord(tx, func(_, key, record []byte) error { return putHistory(tx, key, bytes.Clone(record)) })
	return errors.Join(err, tx.DeleteBucket(revisionsBucket), tx.DeleteBucket(priorsBucket))
}

// add writes a record and deletes the oldest ones over the limits. It returns the records
// that remain.
func (h *history) add(tx *bbolt.Tx, c codec, r *revisions.Record) ([]recordSize, error) {
	revision := r.Revision.GetRevision()
	size := 0
	put := func(key, record []byte) error {
		size += len(key) + len(record)
		return putHistory(tx, key, record)
	}
	at := revisionKeyOf(revision)
	head, err := c.encode(revisionsBucket, at, r.Revision)
	if err != nil {
		return nil, err
	}
	if err := put(at, head); err != nil {
		return nil, err
	}
	for _, p := range r.Priors {
		at := priorKey(revision, p.Ref)
		record, err := encodePrior(c, at, p)
		if err != nil {
			return nil, err
		}
		if err := put(at, record); err != nil {
			return nil, err
		}
	}
	kept := append(h.records[:len(h.records):len(h.records)], recordSize{revision, size})
	total := 0
	for _, k := range kept {
		total += k.bytes
	}
	for len(kept) > 1 && (len(kept) > h.most || total > maxHistoryBytes) {
		if err := tx.Bucket(historyBucket).DeleteBucket(revisionKeyOf(kept[0].revision)); err != nil {
			return nil, err
		}
		total -= kept[0].bytes
		kept = kept[1:]
	}
	return kept, nil
}

// readHistory checks the records of a database whose current revision is live.
func readHistory(tx *bbolt.Tx, format uint64, c codec, live int64) ([]recordSize, error) {
	var all []recordSize
	missing := map[int64]int32{} // number of priors still to be read, by revision
	err := eachHistoryRecord(tx, format, func(purpose, key, record []byte) error {
		if bytes.Equal(purpose, revisionsBucket) {
			head := new(adminv1.Revision)
			if err := c.decode(revisionsBucket, key, record, head); err != nil {
				return fmt.Errorf("revision %x: %w", key, err)
			}
			n := head.GetRevision()
			if !bytes.Equal(key, revisionKeyOf(n)) || len(all) > 0 && all[len(all)-1].revision != n-1 {
				return fmt.Errorf("revision %x is out of order", key)
			}
			all = append(all, recordSize{n, len(key) + len(record)})
			missing[n] = head.GetChangeCount()
			return nil
		}
		n, _, err := parsePriorKey(key)
		if err == nil {
			_, _, err = splitPrior(c, key, record)
		}
		if err != nil {
			return fmt.Errorf("a record of revision %d: %w", n, err)
		}
		missing[n]--
		if len(all) > 0 && n >= all[0].revision && n <= all[len(all)-1].revision {
			all[n-all[0].revision].bytes += len(key) + len(record)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(all) > 0 && all[len(all)-1].revision != live {
		return nil, errors.New("the latest revision is missing from its history")
	}
	for n, count := range missing {
		if count != 0 {
			return nil, fmt.Errorf("the record of revision %d is incomplete", n)
		}
	}
	return all, nil
}

// Revision implements revisions.Store.
func (s *Store) Revision(n int64) (r *adminv1.Revision, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		r, err = s.head(tx, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// head returns a revision, or nil if its record is not stored.
func (s *Store) head(tx *bbolt.Tx, n int64) (*adminv1.Revision, error) {
	b := recordsOf(tx, n)
	if b == nil {
		return nil, nil
	}
	r := new(adminv1.Revision)
	if err := s.codec.decode(revisionsBucket, revisionKeyOf(n), b.Get(headKey), r); err != nil {
		return nil, fmt.Errorf("revision %d: %w", n, err)
	}
	return r, nil
}

// EachRevision implements revisions.Store.
func (s *Store) EachRevision(last int64, yield func(*adminv1.Revision) bool) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		for ; last > 0; last-- {
			r, err := s.head(tx, last)
			if err != nil || r == nil || !yield(r) {
				return err
			}
		}
		return nil
	})
}

// EachPrior implements revisions.Store.
func (s *Store) EachPrior(after, last int64, yield func(revisions.Prior)) (complete bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if complete = after >= last || recordsOf(tx, after+1) != nil; !complete {
			return nil
		}
		for n := after + 1; n <= last; n++ {
			b := recordsOf(tx, n)
			if b == nil {
				return nil
			}
			err := b.ForEach(func(key, record []byte) error {
				if bytes.Equal(key, headKey) {
					return nil
				}
				at := append(revisionKeyOf(n), key...)
				_, ref, err := parsePriorKey(at)
				if err != nil {
					return err
				}
				p, err := decodePrior(s.codec, at, ref, record)
				if err != nil {
					return fmt.Errorf("a record of revision %d: %w", n, err)
				}
				yield(p)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return complete, err
}

// Oldest implements revisions.Store.
func (s *Store) Oldest() (n int64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if key, _ := tx.Bucket(historyBucket).Cursor().First(); len(key) == 8 {
			n = int64(binary.BigEndian.Uint64(key))
		}
		return nil
	})
	return n, err
}

func revisionKeyOf(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func priorKey(revision int64, ref store.Ref) []byte {
	return append(append(revisionKeyOf(revision), byte(ref.Kind)), ref.Name...)
}

func parsePriorKey(key []byte) (revision int64, ref store.Ref, err error) {
	if len(key) < 10 || !store.ValidKind(adminv1.Kind(key[8])) {
		return 0, ref, errors.New("its key is invalid")
	}
	return int64(binary.BigEndian.Uint64(key)), store.Ref{Kind: adminv1.Kind(key[8]), Name: string(key[9:])}, nil
}

// The first byte of a prior's record says whether the resource existed.
const (
	absent  = 0
	present = 1
)

// encodePrior returns the record of a prior: whether the resource existed, the digest of
// its files, and the resource.
func encodePrior(c codec, key []byte, p revisions.Prior) ([]byte, error) {
	head := make([]byte, 1+sha256.Size)
	if p.Resource == nil {
		return c.encodeAfter(priorsBucket, key, head, (*adminv1.Upstream)(nil))
	}
	head[0] = present
	copy(head[1:], p.Files)
	return c.encodeAfter(priorsBucket, key, head, p.Resource)
}

// splitPrior checks a record and returns its parts. resource is nil if the resource did
// not exist.
func splitPrior(c codec, key, record []byte) (files, resource []byte, err error) {
	content, err := c.content(priorsBucket, key, record)
	switch {
	case err != nil:
		return nil, nil, err
	case len(content) < 1+sha256.Size || content[0] > present:
		return nil, nil, errors.New("the record is cut short")
	case content[0] == absent:
		return nil, nil, nil
	}
	return content[1 : 1+sha256.Size], content[1+sha256.Size:], nil
}

func decodePrior(c codec, key []byte, ref store.Ref, record []byte) (revisions.Prior, error) {
	p := revisions.Prior{Ref: ref}
	files, resource, err := splitPrior(c, key, record)
	if err != nil || resource == nil {
		return p, err
	}
	if !bytes.Equal(files, make([]byte, sha256.Size)) {
		p.Files = string(files)
	}
	p.Resource = store.New(ref.Kind)
	if err := proto.Unmarshal(resource, p.Resource); err != nil {
		return p, err
	}
	if p.Resource.GetName() != ref.Name {
		return p, fmt.Errorf("the record holds a resource named %q", p.Resource.GetName())
	}
	return p, nil
}
