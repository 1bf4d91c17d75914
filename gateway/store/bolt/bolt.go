package bolt

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The files in a data directory.
const (
	fileName = "state.db"
	lockName = "drawbridge.lock"
)

// format is the version of the layout: a bucket for each kind, name to record, the
// buckets of the history, and a bucket of facts about the whole. Format 1 had no history.
const format = 2

var (
	metaBucket  = []byte("meta")
	formatKey   = []byte("format")
	revisionKey = []byte("revision")
	sumKey      = []byte("sum")
	instanceKey = []byte("instance")
	pendingKey  = []byte("pending") // the revision that waits to be confirmed, if one does
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
)

// A CorruptError says that the database is damaged. The file was not changed.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged: %v. It was not changed. To continue, put a backup in its place; "+
		"or move it away, start with an empty state and apply your configuration again", e.Path, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// Options configure a Store. The zero value works.
type Options struct {
	// History is how many revisions are stored, with what is needed to roll back to them.
	// 0: 100.
	History int
}

// A Store is an open database. The methods that read the history may be called
// concurrently with each other and one other method. The other methods must not be
// called concurrently.
type Store struct {
	lock     *os.File
	db       *bbolt.DB
	state    *store.State
	instance string
	kept     history
	pending  *adminv1.Pending
}

// Open locks the data directory for this process, creates missing files, and reads the
// state. A directory that another process holds is a *LockedError, a
// damaged database a *CorruptError.
func Open(dir string, o Options) (*Store, error) {
	if err := prepareDir(dir); err != nil {
		return nil, err
	}
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	s := &Store{lock: lock, kept: history{most: cmp.Or(o.History, 100)}}
	if err := s.open(filepath.Join(dir, fileName)); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(path string) error {
	switch info, err := os.Stat(path); {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file: move it away", path)
	case errors.Is(err, fs.ErrNotExist):
		if err := create(path); err != nil {
			return fmt.Errorf("create %s: %w", path, err)
		}
	case err != nil:
		return err
	}
	if err := checkMode(path, 0o600); err != nil {
		return err
	}
	// Read everything before the file is opened for writing: a damaged file is evidence
	// and must not change.
	read, err := readAll(path)
	if err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	if s.instance, err = instanceOf(db); err == nil && read.format < format {
		err = db.Update(upgrade)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), db.Close())
	}
	s.db, s.state, s.kept.records, s.pending = db, read.state, read.records, read.pending
	return nil
}

// upgrade brings a database of an older format to the current one.
func upgrade(tx *bbolt.Tx) error {
	return errors.Join(createHistory(tx), putNumber(tx.Bucket(metaBucket), formatKey, format))
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

// State returns the state that was read when the store was opened.
func (s *Store) State() *store.State { return s.state }

// Commit makes the draft and the record of its revision durable: when it returns nil,
// they survive a crash of the process and of the machine. On an error nothing has changed.
func (s *Store) Commit(d *store.Draft, r *revisions.Record) error {
	var kept []recordSize
	err := s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		sum, err := number(meta, sumKey)
		if err != nil {
			return err
		}
		for _, c := range d.Changes() {
			if c.Action == adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
				continue
			}
			b, name := tx.Bucket([]byte(c.Kind.String())), []byte(c.Name)
			if old := b.Get(name); old != nil {
				sum -= fingerprint(c.Kind, name, old)
			}
			if c.Action == adminv1.ChangeAction_CHANGE_ACTION_DELETED {
				if err := b.Delete(name); err != nil {
					return err
				}
				continue
			}
			record, err := encode(d.State().Get(c.Kind, c.Name))
			if err != nil {
				return err
			}
			if err := b.Put(name, record); err != nil {
				return err
			}
			sum += fingerprint(c.Kind, name, record)
		}
		if err := putNumber(meta, sumKey, sum); err != nil {
			return err
		}
		if kept, err = s.kept.add(tx, r); err != nil {
			return err
		}
		if err := putPending(meta, r.Pending); err != nil {
			return err
		}
		return putNumber(meta, revisionKey, uint64(d.State().Revision()))
	})
	if err == nil {
		s.kept.records = kept
	}
	return err
}

// Close releases the database and the directory.
func (s *Store) Close() error {
	return errors.Join(s.db.Close(), s.lock.Close())
}

// create makes an empty database.
func create(path string) error {
	return place(path, func(fresh string) error {
		db, err := bbolt.Open(fresh, 0o600, nil)
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			for _, k := range store.Kinds() {
				if _, err := tx.CreateBucket([]byte(k.String())); err != nil {
					return err
				}
			}
			meta, err := tx.CreateBucket(metaBucket)
			if err != nil {
				return err
			}
			return errors.Join(createHistory(tx), putNumber(meta, formatKey, format), putNumber(meta, revisionKey, 0), putNumber(meta, sumKey, 0))
		})
		return errors.Join(err, db.Close())
	})
}

// place makes a file under another name with write and then renames it, so that a file
// of the final name is always complete.
func place(path string, write func(fresh string) error) error {
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := write(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// A reading holds what was read from a database.
type reading struct {
	format  uint64
	state   *store.State
	records []recordSize
	pending *adminv1.Pending
}

// readAll reads the database without changing it, and checks each record and the sum
// over all records of resources. bbolt's own Check cannot be used: it runs in its own goroutine,
// where a panic cannot be recovered.
func readAll(path string) (read *reading, err error) {
	// bbolt maps the file and trusts its pages: damage shows as a panic or, in a
	// file cut short, as a fault on access.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			read, err = nil, &CorruptError{path, fmt.Errorf("%v", p)}
		}
	}()
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.Size() == 0 {
		return nil, &CorruptError{path, errors.New("it is empty")}
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	if errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	if err != nil {
		return nil, &CorruptError{path, err}
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		read, err = readTx(tx)
		return err
	})
	var newer *newerError
	if errors.As(err, &newer) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		return nil, &CorruptError{path, err}
	}
	return read, nil
}

type newerError struct {
	found   uint64
	unknown string // the unknown content, besides the format
}

func (e *newerError) Error() string {
	return fmt.Sprintf("was written by a newer version of drawbridge (format %d%s; this one reads format %d): run that version", e.found, e.unknown, format)
}

func readTx(tx *bbolt.Tx) (*reading, error) {
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		return nil, errors.New("it is not a drawbridge database")
	}
	found, err := number(meta, formatKey)
	if err != nil {
		return nil, err
	}
	if found > format {
		return nil, &newerError{found: found}
	}
	if found == 0 {
		return nil, errors.New("its format is 0")
	}
	known := map[string]bool{string(metaBucket): true}
	if found >= 2 {
		known[string(revisionsBucket)], known[string(priorsBucket)] = true, true
	}
	for _, k := range store.Kinds() {
		known[k.String()] = true
	}
	err = tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
		if !known[string(name)] {
			return &newerError{found, fmt.Sprintf(" and holds %q", name)}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	revision, err := number(meta, revisionKey)
	if err != nil {
		return nil, err
	}
	wantSum, err := number(meta, sumKey)
	if err != nil {
		return nil, err
	}
	var sum uint64
	var all []store.Resource
	for _, k := range store.Kinds() {
		b := tx.Bucket([]byte(k.String()))
		if b == nil {
			return nil, fmt.Errorf("bucket %v is missing", k)
		}
		err := b.ForEach(func(name, record []byte) error {
			r := store.New(k)
			if err := decode(record, r); err != nil {
				return fmt.Errorf("%s %q: %w", store.KindName(k), name, err)
			}
			if r.GetName() != string(name) {
				return fmt.Errorf("%s %q holds one named %q", store.KindName(k), name, r.GetName())
			}
			all = append(all, r)
			sum += fingerprint(k, name, record)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if sum != wantSum {
		return nil, errors.New("resources are missing from it")
	}
	read := &reading{format: found}
	if found >= 2 {
		if read.records, err = readHistory(tx, int64(revision)); err != nil {
			return nil, err
		}
		if read.pending, err = readPending(meta, int64(revision)); err != nil {
			return nil, err
		}
	}
	read.state, err = store.Restore(int64(revision), all)
	return read, err
}

func number(b *bbolt.Bucket, key []byte) (uint64, error) {
	v := b.Get(key)
	if len(v) != 8 {
		return 0, fmt.Errorf("%s is missing", key)
	}
	return binary.BigEndian.Uint64(v), nil
}

func putNumber(b *bbolt.Bucket, key []byte, n uint64) error {
	return b.Put(key, binary.BigEndian.AppendUint64(nil, n))
}

// fingerprint returns a resource's part of the sum over all records. The sum detects a
// page that is missing from the tree with its records.
func fingerprint(k adminv1.Kind, name, record []byte) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s/", k, name)
	h.Write(record)
	return h.Sum64()
}

// encode returns a record: a CRC-32C of the message, then the message. bbolt
// checks its own structure, not the values in it.
func encode(m proto.Message) ([]byte, error) { return encodeAfter(nil, m) }

// encodeAfter is encode for a record that holds further bytes before the message.
func encodeAfter(head []byte, m proto.Message) ([]byte, error) {
	record, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(append(make([]byte, 4), head...), m)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(record, crc32.Checksum(record[4:], castagnoli))
	return record, nil
}

func decode(record []byte, m proto.Message) error {
	content, err := checked(record)
	if err != nil {
		return err
	}
	return proto.Unmarshal(content, m)
}

// checked returns the content of a record, without its checksum.
func checked(record []byte) ([]byte, error) {
	if len(record) < 4 || crc32.Checksum(record[4:], castagnoli) != binary.BigEndian.Uint32(record) {
		return nil, errors.New("its checksum is wrong")
	}
	return record[4:], nil
}
