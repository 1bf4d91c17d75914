package bolt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The buckets of the history: revision to Revision, and revision, kind and name to the
// resource before the revision.
var (
	revisionsBucket = []byte("revisions")
	priorsBucket    = []byte("priors")
)

// maxHistoryBytes bounds the records of the history, besides the latest one, in bytes.
const maxHistoryBytes = 64 << 20

// A history tracks the records in the database, oldest first. Their revisions have no
// gaps, and the last one is the current revision.
type history struct {
	most    int // records
	records []recordSize
}

type recordSize struct {
	revision int64
	bytes    int
}

func createHistory(tx *bbolt.Tx) error {
	_, err := tx.CreateBucket(revisionsBucket)
	if err != nil {
		return err
	}
	_, err = tx.CreateBucket(priorsBucket)
	return err
}

// add writes a record and deletes the oldest ones over the limits. It returns the records
// that are then stored.
func (h *history) add(tx *bbolt.Tx, c codec, r *revisions.Record) ([]recordSize, error) {
	revision := r.Revision.GetRevision()
	size := 0
	put := func(bucket, key, record []byte) error {
		size += len(key) + len(record)
		return tx.Bucket(bucket).Put(key, record)
	}
	at := revisionKeyOf(revision)
	head, err := c.encode(revisionsBucket, at, r.Revision)
	if err != nil {
		return nil, err
	}
	if err := put(revisionsBucket, at, head); err != nil {
		return nil, err
	}
	for _, p := range r.Priors {
		at := priorKey(revision, p.Ref)
		record, err := encodePrior(c, at, p)
		if err != nil {
			return nil, err
		}
		if err := put(priorsBucket, at, record); err != nil {
			return nil, err
		}
	}
	kept := append(h.records[:len(h.records):len(h.records)], recordSize{revision, size})
	total := 0
	for _, k := range kept {
		total += k.bytes
	}
	for len(kept) > 1 && (len(kept) > h.most || total > maxHistoryBytes) {
		if err := deleteRecord(tx, kept[0].revision); err != nil {
			return nil, err
		}
		total -= kept[0].bytes
		kept = kept[1:]
	}
	return kept, nil
}

func deleteRecord(tx *bbolt.Tx, revision int64) error {
	prefix := revisionKeyOf(revision)
	if err := tx.Bucket(revisionsBucket).Delete(prefix); err != nil {
		return err
	}
	priors := tx.Bucket(priorsBucket)
	var keys [][]byte // a cursor must not delete while it iterates
	c := priors.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := priors.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// readHistory checks the records of a database whose current revision is live.
func readHistory(tx *bbolt.Tx, c codec, live int64) ([]recordSize, error) {
	heads, priors := tx.Bucket(revisionsBucket), tx.Bucket(priorsBucket)
	if heads == nil || priors == nil {
		return nil, errors.New("the buckets of its history are missing")
	}
	var all []recordSize
	missing := map[int64]int32{} // how many priors of a revision were not read yet
	err := heads.ForEach(func(key, record []byte) error {
		var head adminv1.Revision
		if err := c.decode(revisionsBucket, key, record, &head); err != nil {
			return fmt.Errorf("revision %x: %w", key, err)
		}
		n := head.GetRevision()
		if !bytes.Equal(key, revisionKeyOf(n)) || len(all) > 0 && all[len(all)-1].revision != n-1 {
			return fmt.Errorf("revision %x is out of order", key)
		}
		all = append(all, recordSize{n, len(key) + len(record)})
		missing[n] = head.GetChangeCount()
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(all) > 0 && all[len(all)-1].revision != live {
		return nil, errors.New("the latest revision is missing from its history")
	}
	err = priors.ForEach(func(key, record []byte) error {
		n, _, err := parsePriorKey(key)
		if err == nil {
			_, _, err = splitPrior(c, key, record)
		}
		if err != nil {
			return fmt.Errorf("a record of revision %d: %w", n, err)
		}
		missing[n]--
		if len(all) > 0 && n >= all[0].revision && n <= live {
			all[n-all[0].revision].bytes += len(key) + len(record)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for n, left := range missing {
		if left != 0 {
			return nil, fmt.Errorf("the record of revision %d is incomplete", n)
		}
	}
	return all, nil
}

// Revision implements revisions.Store.
func (s *Store) Revision(n int64) (r *adminv1.Revision, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		at := revisionKeyOf(n)
		record := tx.Bucket(revisionsBucket).Get(at)
		if record == nil {
			return nil
		}
		r = new(adminv1.Revision)
		return s.codec.decode(revisionsBucket, at, record, r)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// EachRevision implements revisions.Store.
func (s *Store) EachRevision(last int64, yield func(*adminv1.Revision) bool) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		heads := tx.Bucket(revisionsBucket)
		for ; last > 0; last-- {
			at := revisionKeyOf(last)
			record := heads.Get(at)
			if record == nil {
				return nil
			}
			r := new(adminv1.Revision)
			if err := s.codec.decode(revisionsBucket, at, record, r); err != nil {
				return fmt.Errorf("revision %d: %w", last, err)
			}
			if !yield(r) {
				return nil
			}
		}
		return nil
	})
}

// EachPrior implements revisions.Store.
func (s *Store) EachPrior(after, last int64, yield func(revisions.Prior)) (complete bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if complete = after >= last || tx.Bucket(revisionsBucket).Get(revisionKeyOf(after+1)) != nil; !complete {
			return nil
		}
		c := tx.Bucket(priorsBucket).Cursor()
		for key, record := c.Seek(revisionKeyOf(after + 1)); key != nil; key, record = c.Next() {
			n, ref, err := parsePriorKey(key)
			if err != nil || n > last {
				return err
			}
			p, err := decodePrior(s.codec, key, ref, record)
			if err != nil {
				return fmt.Errorf("a record of revision %d: %w", n, err)
			}
			yield(p)
		}
		return nil
	})
	return complete, err
}

// Oldest implements revisions.Store.
func (s *Store) Oldest() (n int64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if key, _ := tx.Bucket(revisionsBucket).Cursor().First(); len(key) == 8 {
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

// encodePrior returns a record: whether the resource existed, the digest of its files,
// and the resource.
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
		return nil, nil, errors.New("it is cut short")
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
		return p, fmt.Errorf("it holds a resource named %q", p.Resource.GetName())
	}
	return p, nil
}
