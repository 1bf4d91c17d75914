package bolt

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Seal seals the database of a data directory that no process holds. It writes a new file
// that contains no bytes of the old one, and replaces the old file when the new one is
// complete and on disk. If Seal fails, the old file is unchanged. If the database is
// already sealed with key, Seal changes nothing.
func Seal(dir string, key *seal.Key) (Summary, error) {
	return resealing{from: nil, to: key}.run(dir)
}

// Rekey seals a sealed database with another key and a new data key, in the same way. At
// every moment one of the two keys opens the file.
func Rekey(dir string, from, to *seal.Key) (Summary, error) {
	return resealing{from: from, to: to}.run(dir)
}

// A resealing copies a database to one that is sealed with another key.
type resealing struct {
	from, to *seal.Key         // from is nil if the database is not sealed
	reached  func(step string) // called after each step, for tests; may be nil
	batch    int               // bytes of records per transaction of the copy; 0: 4 MiB
}

func (r resealing) run(dir string) (Summary, error) {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); err != nil {
		return Summary{}, err
	}
	if err := errors.Join(checkMode(dir, 0o700), checkMode(path, 0o600)); err != nil {
		return Summary{}, err
	}
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return Summary{}, err
	}
	defer lock.Close()
	// An earlier run may have been interrupted after its last step.
	if done, err := readAll(path, r.to); err == nil {
		return done.summary(), removeStale(path)
	}
	before, err := readAll(path, r.from)
	if mismatch, ok := errors.AsType[*SealError](err); ok && mismatch.Problem == KeyMissing {
		return Summary{}, &SealError{path, KeyWrong} // the database is sealed with a key other than r.to
	}
	if err != nil {
		return Summary{}, err
	}
	var after *reading
	err = place(path, func(fresh string) error {
		if err := r.copyTo(fresh, path, before); err != nil {
			return err
		}
		// The new file replaces the old one only after it has been read back.
		if after, err = readAll(fresh, r.to); err != nil {
			return err
		}
		if was, is := before.summary(), after.summary(); was.Revision != is.Revision || was.Resources != is.Resources || was.Records != is.Records {
			return fmt.Errorf("the copy holds %+v instead of %+v", is, was)
		}
		r.step("read back")
		return nil
	}, func() { r.step("rename") })
	if err != nil {
		return Summary{}, fmt.Errorf("seal %s: %w", path, err)
	}
	return after.summary(), nil
}

func (r resealing) step(name string) {
	if r.reached != nil {
		r.reached(name)
	}
}

// copyTo writes the database to a new file, sealed with the new key.
func (r resealing) copyTo(fresh, path string, read *reading) error {
	db, err := bbolt.Open(fresh, 0o600, &bbolt.Options{NoSync: true}) // the file is synced once, at the end
	if err != nil {
		return err
	}
	r.step("create")
	// A copy error, such as a full disk, does not mean that the source is damaged.
	var copied error
	err = view(path, func(from *bbolt.Tx) error {
		c := copier{db: db, batch: cmp.Or(r.batch, 4<<20), from: read.codec, committed: func() { r.step("commit") }}
		defer c.rollback()
		if copied = c.begin(); copied == nil {
			copied = c.all(from, read, r.to)
		}
		return nil
	})
	if err = errors.Join(err, copied); err == nil {
		err = db.Sync()
	}
	r.step("sync")
	return errors.Join(err, db.Close())
}

// A copier writes the records of one database to another, in transactions of bounded size.
// Nothing reads the target before it is complete.
type copier struct {
	db        *bbolt.DB
	tx        *bbolt.Tx // nil before begin
	batch     int       // approximate bytes of records per transaction
	bytes     int       // bytes written in tx
	from, to  codec
	committed func()
}

func (c *copier) begin() (err error) {
	c.tx, err = c.db.Begin(true)
	c.bytes = 0
	return err
}

func (c *copier) rollback() {
	if c.tx != nil {
		c.tx.Rollback()
	}
}

func (c *copier) commit() error {
	tx := c.tx
	c.tx = nil
	if err := tx.Commit(); err != nil {
		return err
	}
	c.committed()
	return nil
}

// all copies every record.
func (c *copier) all(from *bbolt.Tx, read *reading, key *seal.Key) error {
	meta, err := createBuckets(c.tx)
	if err != nil {
		return err
	}
	if c.to, err = setFormat(meta, key); err != nil {
		return err
	}
	var sum uint64
	err = eachResource(from, read.sum, func(k adminv1.Kind, bucket, name, record []byte) error {
		sealed, err := c.put(bucket, name, record)
		sum += fingerprint(k, name, sealed)
		return err
	})
	if err != nil {
		return err
	}
	if read.format > 1 {
		if err := c.history(from, read.format); err != nil {
			return err
		}
	}
	meta = c.tx.Bucket(metaBucket)
	if err := errors.Join(putNumber(meta, revisionKey, uint64(read.revision)), putNumber(meta, sumKey, sum)); err != nil {
		return err
	}
	if id := from.Bucket(metaBucket).Get(instanceKey); id != nil {
		if err := meta.Put(instanceKey, id); err != nil {
			return err
		}
	}
	return c.commit()
}

// history copies the records of the history and of extraKeys.
func (c *copier) history(from *bbolt.Tx, format uint64) error {
	err := eachHistoryRecord(from, format, func(purpose, key, record []byte) error {
		sealed, err := c.reseal(purpose, key, record)
		if err != nil {
			return err
		}
		return putHistory(c.tx, key, sealed)
	})
	for _, key := range extraKeys {
		if record := from.Bucket(metaBucket).Get(key); err == nil && record != nil {
			_, err = c.put(metaBucket, key, record)
		}
	}
	return err
}

// put copies a record to the same place, and returns the new record.
func (c *copier) put(bucket, key, record []byte) ([]byte, error) {
	sealed, err := c.reseal(bucket, key, record)
	if err != nil {
		return nil, err
	}
	return sealed, c.tx.Bucket(bucket).Put(key, sealed)
}

// reseal returns a record sealed with the new key. It begins a new transaction if the
// current one is full.
func (c *copier) reseal(bucket, key, record []byte) ([]byte, error) {
	content, err := c.from.content(bucket, key, record)
	if err != nil {
		return nil, err
	}
	sealed := c.to.record(bucket, key, content)
	if c.bytes += len(sealed); c.bytes > c.batch {
		if err := errors.Join(c.commit(), c.begin()); err != nil {
			return nil, err
		}
	}
	return sealed, nil
}
