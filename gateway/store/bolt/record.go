package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fingerprint returns the contribution of a resource to the sum over all records. The sum
// detects a page that is missing from the tree with its records.
func fingerprint(k adminv1.Kind, name, record []byte) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s/", k, name)
	h.Write(record)
	return h.Sum64()
}

// A codec turns messages into records and back. A record is a CRC-32C of its content,
// then the content, because bbolt checks its own structure, not the values in it.
//
// In a sealed database the content of every record is sealed for its bucket and key. The
// codec seals every record, so that no field with a secret can be overlooked.
type codec struct {
	sealer *seal.Sealer // nil if the database is not sealed
}

func (c codec) encode(bucket, key []byte, m proto.Message) ([]byte, error) {
	return c.encodeAfter(bucket, key, nil, m)
}

// encodeAfter is encode for a record with further bytes before the message.
func (c codec) encodeAfter(bucket, key, head []byte, m proto.Message) ([]byte, error) {
	content, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(head, m)
	if err != nil {
		return nil, err
	}
	return c.record(bucket, key, content), nil
}

// record returns the record with the given content.
func (c codec) record(bucket, key, content []byte) []byte {
	if c.sealer != nil {
		content = c.sealer.Seal(seal.Place{Bucket: bucket, Key: key}, content)
	}
	return withChecksum(content)
}

func (c codec) decode(bucket, key, record []byte, m proto.Message) error {
	content, err := c.content(bucket, key, record)
	if err != nil {
		return err
	}
	return proto.Unmarshal(content, m)
}

// content returns the content of a record.
func (c codec) content(bucket, key, record []byte) ([]byte, error) {
	content, err := checked(record)
	if err != nil || c.sealer == nil {
		return content, err
	}
	return c.sealer.Open(seal.Place{Bucket: bucket, Key: key}, content)
}

func withChecksum(content []byte) []byte {
	record := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(content)), crc32.Checksum(content, castagnoli))
	return append(record, content...)
}

// checked verifies the checksum of a record, and returns the bytes after it.
func checked(record []byte) ([]byte, error) {
	if len(record) < 4 || crc32.Checksum(record[4:], castagnoli) != binary.BigEndian.Uint32(record) {
		return nil, errors.New("its checksum is wrong")
	}
	return record[4:], nil
}
