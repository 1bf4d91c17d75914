package bolt

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A SealError says that the database needs another key, a key, or no key. The file was not
// changed.
type SealError struct {
	Path    string
	Problem SealProblem
}

// A SealProblem says why a key does not fit a database.
type SealProblem int

// The problems.
const (
	KeyMissing SealProblem = iota + 1 // the database is sealed, and no key was given
	KeyWrong                          // the database is sealed with another key
	NotSealed                         // the database is not sealed, and a key was given
)

func (e *SealError) Error() string {
	switch e.Problem {
	case KeyMissing:
		return fmt.Sprintf("%s is sealed: give its key with --seal-key-file, or as the systemd credential %s. The file was not changed", e.Path, seal.Credential)
	case KeyWrong:
		return e.Path + " is sealed with a different key: give the key that it was sealed with. The file was not changed"
	default:
		return e.Path + " is not sealed, and a seal key was given: run \"drawbridge store seal\" with its directory and the key once, " +
			"or give no key. The file was not changed"
	}
}

// open returns the codec of the database's records.
func (h *header) open(key *seal.Key) (codec, error) {
	switch {
	case h.sealed() && key == nil:
		return codec{}, &SealError{Problem: KeyMissing}
	case !h.sealed() && key != nil:
		return codec{}, &SealError{Problem: NotSealed}
	case key == nil:
		return codec{}, nil
	}
	sealer, err := key.Unwrap(h.wrapped)
	if err != nil {
		return codec{}, &SealError{Problem: KeyWrong}
	}
	return codec{sealer}, nil
}

// setFormat writes the format of a database and, if key is not nil, a new data key. It
// returns the codec for its records.
func setFormat(meta *bbolt.Bucket, key *seal.Key) (codec, error) {
	if key == nil {
		return codec{}, putNumber(meta, formatKey, format)
	}
	sealer, wrapped, err := key.NewSealer()
	if err != nil {
		return codec{}, err
	}
	if err := meta.Put(dataKeyKey, withChecksum(wrapped)); err != nil {
		return codec{}, err
	}
	return codec{sealer}, putNumber(meta, formatKey, sealedFormat)
}

// inspect reads a whole sealed database without its key. It checks the checksum of each
// record and the sum over all resources, but not the content of the records.
func inspect(path string) (s Summary, err error) {
	err = view(path, func(tx *bbolt.Tx) error {
		h, err := readHeader(tx)
		if err != nil {
			return err
		}
		s = Summary{Revision: h.revision, Sealed: h.sealed()}
		err = eachResource(tx, h.sum, func(_ adminv1.Kind, _, _, record []byte) error {
			s.Resources++
			_, err := checked(record)
			return err
		})
		if err != nil {
			return err
		}
		err = eachHistoryRecord(tx, h.format, func(purpose, key, record []byte) error {
			if bytes.Equal(purpose, revisionsBucket) {
				s.Records++
			}
			_, err := checked(record)
			return err
		})
		for _, key := range extraKeys {
			if record := tx.Bucket(metaBucket).Get(key); err == nil && record != nil {
				_, err = checked(record)
			}
		}
		return err
	})
	return s, err
}
