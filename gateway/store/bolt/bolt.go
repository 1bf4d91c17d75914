package bolt

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The files in a data directory.
const (
	fileName = "state.db"
	lockName = "drawbridge.lock"
)

// format is the version of the layout: a bucket for each kind that maps names to records,
// a bucket for the history, and a bucket for facts about the whole database. Format 1 had
// no history. Format 2 had a different layout of the history. sealedFormat is the layout
// of format with sealed records.
const (
	format       = 3
	sealedFormat = 4
)

var (
	metaBucket  = []byte("meta")
	formatKey   = []byte("format")
	revisionKey = []byte("revision")
	sumKey      = []byte("sum")
	instanceKey = []byte("instance")
	pendingKey  = []byte("pending")  // the revision that waits to be confirmed, if any
	dataKeyKey  = []byte("data key") // the key that seals the records, wrapped by the seal key; only in a sealed database

	// extraKeys are the keys of values that are records.
	extraKeys = [][]byte{pendingKey, positionKey, ticketsKey}
)

// A CorruptError says that the database is damaged. The file was not changed.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged: %v. The file was not changed. To continue, put a backup in its place; "+
		"or move it away, start with an empty state and apply your configuration again", e.Path, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// Options configure a Store. The zero value works.
type Options struct {
	// History is the number of revisions to store, with the data to roll back to them.
	// 0: 100.
	History int

	// Key opens a sealed database, and seals a new one. nil: the database must not be
	// sealed.
	Key *seal.Key
}

// A Store is an open database. The methods that read the history may be called
// concurrently with each other and one other method. The other methods must not be
// called concurrently.
type Store struct {
	path     string
	key      *seal.Key
	lock     *dirLock // nil: another process holds the directory
	db       database
	state    *store.State
	instance string
	codec    codec
	kept     history
	pending  *adminv1.Pending
	position []byte // see Follow; nil: the database is not a copy
	tickets  []byte // see KeepTickets
}

// Open locks the data directory for this process, creates missing files, and reads the
// state. It returns a *LockedError if another process holds the directory, a
// *CorruptError if the database is damaged, and a *SealError if the key does not fit.
func Open(dir string, o Options) (*Store, error) {
	if err := prepareDir(dir); err != nil {
		return nil, err
	}
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	s := &Store{path: filepath.Join(dir, fileName), key: o.Key, lock: lock, kept: history{most: cmp.Or(o.History, 100)}}
	if err := s.open(s.path, o.Key); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(path string, key *seal.Key) error {
	switch info, err := os.Stat(path); {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file: move it away", path)
	case errors.Is(err, fs.ErrNotExist):
		if err := create(path, key); err != nil {
			return fmt.Errorf("create %s: %w", path, err)
		}
	case err != nil:
		return err
	}
	if err := checkMode(path, 0o600); err != nil {
		return err
	}
	// Open reads everything before it opens the file for writing, because a damaged file
	// is evidence and must not change.
	read, err := readAll(path, key)
	if err != nil {
		return err
	}
	if err := removeStale(path); err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	if s.instance, err = instanceOf(db); err == nil && read.format < format {
		err = db.Update(func(tx *bbolt.Tx) error { return upgrade(tx, read.format) })
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), db.Close())
	}
	s.db.now.Store(db)
	s.codec, s.state, s.kept.records, s.pending = read.codec, read.state, read.records, read.pending
	s.position, s.tickets = read.position, read.tickets
	return nil
}

// upgrade brings a database of an older format to the current one.
func upgrade(tx *bbolt.Tx, from uint64) error {
	return errors.Join(upgradeHistory(tx, from), putNumber(tx.Bucket(metaBucket), formatKey, format))
}

// instanceOf returns the ID of the database. It creates one if the database has none.
func instanceOf(db *bbolt.DB) (id string, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		id = string(tx.Bucket(metaBucket).Get(instanceKey))
		return nil
	})
	if id != "" || err != nil {
		return id, err
	}
	id = rand.Text()
	return id, db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(instanceKey, []byte(id)) })
}

// InstanceID identifies the database that revisions belong to.
func (s *Store) InstanceID() string { return s.instance }

// Sealed reports whether the database is sealed.
func (s *Store) Sealed() bool { return s.codec.sealer != nil }

// State returns the state that Open read or Follow wrote.
func (s *Store) State() *store.State { return s.state }

// Commit makes the draft and the record of its revision durable: when it returns nil,
// they survive a crash of the process and of the machine. If it fails, nothing has changed.
func (s *Store) Commit(d *store.Draft, r *revisions.Record) error {
	var kept []recordSize
	err := s.db.Update(func(tx *bbolt.Tx) (err error) {
		if err := s.put(tx, d.State(), changedBy(d)); err != nil {
			return err
		}
		if kept, err = s.kept.add(tx, s.codec, r); err != nil {
			return err
		}
		return putPending(tx.Bucket(metaBucket), s.codec, r.Pending)
	})
	if err == nil {
		s.kept.records = kept
	}
	return err
}

// changedBy returns the resources that a draft changes.
func changedBy(d *store.Draft) []store.Ref {
	var refs []store.Ref
	for _, c := range d.Changes() {
		if c.Action != adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			refs = append(refs, store.Ref{Kind: c.Kind, Name: c.Name})
		}
	}
	return refs
}

// put writes the changed resources of a state, and its revision.
func (s *Store) put(tx *bbolt.Tx, state *store.State, changed []store.Ref) error {
	meta := tx.Bucket(metaBucket)
	sum, err := number(meta, sumKey)
	if err != nil {
		return err
	}
	for _, ref := range changed {
		bucket, name := []byte(ref.Kind.String()), []byte(ref.Name)
		b := tx.Bucket(bucket)
		if old := b.Get(name); old != nil {
			sum -= fingerprint(ref.Kind, name, old)
		}
		r := state.Get(ref.Kind, ref.Name)
		if r == nil {
			if err := b.Delete(name); err != nil {
				return err
			}
			continue
		}
		record, err := s.codec.encode(bucket, name, r)
		if err != nil {
			return err
		}
		if err := b.Put(name, record); err != nil {
			return err
		}
		sum += fingerprint(ref.Kind, name, record)
	}
	if err := putNumber(meta, sumKey, sum); err != nil {
		return err
	}
	return putNumber(meta, revisionKey, uint64(state.Revision()))
}

// Close releases the database and the directory.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return errors.Join(s.db.Close(), s.lock.Close())
}

// create makes an empty database. If key is not nil, the database is sealed with it.
func create(path string, key *seal.Key) error {
	return place(path, func(fresh string) error {
		db, err := bbolt.Open(fresh, 0o600, nil)
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			meta, err := createBuckets(tx)
			if err != nil {
				return err
			}
			_, err = setFormat(meta, key)
			return errors.Join(err, putNumber(meta, revisionKey, 0), putNumber(meta, sumKey, 0))
		})
		return errors.Join(err, db.Close())
	}, nil)
}

// createBuckets creates the buckets of an empty database, and returns the bucket for facts
// about the whole database.
func createBuckets(tx *bbolt.Tx) (meta *bbolt.Bucket, err error) {
	for _, k := range store.Kinds() {
		if _, err := tx.CreateBucket([]byte(k.String())); err != nil {
			return nil, err
		}
	}
	if err := createHistory(tx); err != nil {
		return nil, err
	}
	return tx.CreateBucket(metaBucket)
}
