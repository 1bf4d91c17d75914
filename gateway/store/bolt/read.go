package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A reading holds the content of a database.
type reading struct {
	header
	codec   codec
	state   *store.State
	records []recordSize
	pending *adminv1.Pending

	position []byte
	tickets  []byte
}

// readAll reads the database without changing it, and checks each record and the sum
// over all records of resources. key opens a sealed database; otherwise it is nil.
func readAll(path string, key *seal.Key) (read *reading, err error) {
	err = view(path, func(tx *bbolt.Tx) error {
		read, err = readTx(tx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return read, nil
}

// view calls f with the database, opened for reading only. bbolt's own Check cannot be
// used: it runs in its own goroutine, where a panic cannot be recovered.
func view(path string, f func(*bbolt.Tx) error) (err error) {
	// bbolt maps the file and trusts its pages: damage shows as a panic or, in a
	// file cut short, as a fault on access.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &CorruptError{path, fmt.Errorf("%v", p)}
		}
	}()
	if info, err := os.Stat(path); err != nil {
		return err
	} else if info.Size() == 0 {
		return &CorruptError{path, errors.New("the file is empty")}
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err != nil {
		return &CorruptError{path, err}
	}
	defer db.Close()
	err = db.View(f)
	if _, newer := errors.AsType[*newerError](err); newer {
		return fmt.Errorf("%s: %w", path, err)
	}
	if sealed, ok := errors.AsType[*SealError](err); ok {
		return &SealError{path, sealed.Problem}
	}
	if err != nil {
		return &CorruptError{path, err}
	}
	return nil
}

type newerError struct {
	found   uint64
	unknown string // the unknown content; "" if only the format is newer
}

func (e *newerError) Error() string {
	return fmt.Sprintf("was written by a newer version of drawbridge (format %d%s; this one reads format %d): run that version", e.found, e.unknown, sealedFormat)
}

// A header holds the facts about a database that are never sealed.
type header struct {
	format   uint64
	revision int64
	sum      uint64
	wrapped  []byte // the data key of a sealed database
}

func (h *header) sealed() bool { return h.format == sealedFormat }

func readHeader(tx *bbolt.Tx) (h header, err error) {
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		return h, errors.New("not a drawbridge database")
	}
	h.format, err = number(meta, formatKey)
	switch {
	case err != nil:
		return h, err
	case h.format > sealedFormat:
		return h, &newerError{found: h.format}
	case h.format == 0:
		return h, errors.New("its format is 0")
	}
	if err := knownBuckets(tx, h.format); err != nil {
		return h, err
	}
	revision, err := number(meta, revisionKey)
	if err != nil {
		return h, err
	}
	h.revision = int64(revision)
	if h.sum, err = number(meta, sumKey); err != nil {
		return h, err
	}
	record := meta.Get(dataKeyKey)
	if (record != nil) != h.sealed() {
		return h, fmt.Errorf("its data key does not agree with its format %d", h.format)
	}
	if h.sealed() {
		content, err := checked(record)
		if err != nil {
			return h, fmt.Errorf("its data key: %w", err)
		}
		h.wrapped = append(h.wrapped, content...) // a copy, because the page is only mapped in this transaction
	}
	return h, nil
}

func knownBuckets(tx *bbolt.Tx, format uint64) error {
	known := map[string]bool{string(metaBucket): true}
	switch {
	case format == 2:
		known[string(revisionsBucket)], known[string(priorsBucket)] = true, true
	case format > 2:
		known[string(historyBucket)] = true
	}
	for _, k := range store.Kinds() {
		known[k.String()] = true
	}
	return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
		if !known[string(name)] {
			return &newerError{format, fmt.Sprintf(" and holds %q", name)}
		}
		return nil
	})
}

func readTx(tx *bbolt.Tx, key *seal.Key) (*reading, error) {
	h, err := readHeader(tx)
	if err != nil {
		return nil, err
	}
	read := &reading{header: h}
	if read.codec, err = h.open(key); err != nil {
		return nil, err
	}
	var all []store.Resource
	err = eachResource(tx, h.sum, func(k adminv1.Kind, bucket, name, record []byte) error {
		r := store.New(k)
		if err := read.codec.decode(bucket, name, record, r); err != nil {
			return err
		}
		if r.GetName() != string(name) {
			return fmt.Errorf("holds a resource named %q", r.GetName())
		}
		all = append(all, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if h.format > 1 {
		if read.records, err = readHistory(tx, h.format, read.codec, h.revision); err != nil {
			return nil, err
		}
		if read.pending, err = readPending(tx.Bucket(metaBucket), read.codec, h.revision); err != nil {
			return nil, err
		}
	}
	if read.position, err = readPosition(tx.Bucket(metaBucket), read.codec); err != nil {
		return nil, err
	}
	if read.tickets, err = readTickets(tx.Bucket(metaBucket), read.codec); err != nil {
		return nil, err
	}
	read.state, err = store.Restore(h.revision, all)
	return read, err
}

// eachResource calls f with the record of each resource, and checks the sum over all.
func eachResource(tx *bbolt.Tx, wantSum uint64, f func(k adminv1.Kind, bucket, name, record []byte) error) error {
	var sum uint64
	for _, k := range store.Kinds() {
		bucket := []byte(k.String())
		b := tx.Bucket(bucket)
		if b == nil {
			return fmt.Errorf("bucket %s is missing", bucket)
		}
		err := b.ForEach(func(name, record []byte) error {
			sum += fingerprint(k, name, record)
			if err := f(k, bucket, name, record); err != nil {
				return fmt.Errorf("%s %q: %w", store.KindName(k), name, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if sum != wantSum {
		return errors.New("resources are missing from it")
	}
	return nil
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
