package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
)

// chunkBytes bounds the content of a chunk. etcd accepts requests up to 1.5 MiB.
const chunkBytes = 512 << 10

// errGone reports that a chunk does not exist: the record was deleted because it is too
// old, or it was never committed.
var errGone = errors.New("a chunk is missing")

// place binds a chunk to its key and to the number of chunks.
func (b Blob) place(kind string, n int) seal.Place {
	return seal.Place{Bucket: []byte(strings.TrimSuffix(kind, "/")), Key: fmt.Appendf(nil, "%d/%s/%d/%d", b.Revision, b.ID, n, b.Chunks)}
}

// write writes content in sealed chunks. Nothing refers to them yet.
func (s *Store) write(ctx context.Context, sealer *seal.Sealer, kind string, revision int64, id string, content []byte) (Blob, error) {
	b := Blob{Revision: revision, ID: id, Chunks: (len(content) + chunkBytes - 1) / chunkBytes, Bytes: len(content)}
	prefix := s.prefix + blobPrefix(kind, revision, id)
	for n := range b.Chunks {
		chunk := content[n*chunkBytes : min((n+1)*chunkBytes, len(content))]
		if _, err := s.txn(ctx, nil, clientv3.OpPut(fmt.Sprintf(keyOfChunk, prefix, n), string(sealer.Seal(b.place(kind, n), chunk)))); err != nil {
			return b, err
		}
	}
	return b, nil
}

// read returns the content of a blob, and the value of its key amendedName, if it has one.
func (s *Store) read(ctx context.Context, sealer *seal.Sealer, kind string, b Blob) (content, amended []byte, err error) {
	prefix := s.prefix + blobPrefix(kind, b.Revision, b.ID)
	content = make([]byte, 0, b.Bytes)
	for n, more := 0, true; more; {
		resp, err := s.txn(ctx, nil, clientv3.OpGet(fmt.Sprintf(keyOfChunk, prefix, n), clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(chunksPerRead)))
		if err != nil {
			return nil, nil, err
		}
		got := resp.Responses[0].GetResponseRange()
		for _, kv := range got.GetKvs() {
			if string(kv.Key) == prefix+amendedName {
				amended = kv.Value
				continue
			}
			if string(kv.Key) != fmt.Sprintf(keyOfChunk, prefix, n) {
				return nil, nil, errGone
			}
			chunk, err := sealer.Open(b.place(kind, n), kv.Value)
			if err != nil {
				return nil, nil, fmt.Errorf("etcd: %s: %w", kv.Key, err)
			}
			content = append(content, chunk...)
			n++
		}
		if more = got.GetMore(); !more && n != b.Chunks {
			return nil, nil, errGone
		}
	}
	return content, amended, nil
}

// discard deletes the chunks of a blob that nothing refers to. If that fails, a later
// commit deletes them with the old records.
func (s *Store) discard(kind string, revision int64, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	_, _ = s.client.Delete(ctx, s.prefix+blobPrefix(kind, revision, id), clientv3.WithPrefix())
}

// before returns the operation that deletes every key of a kind whose revision
// is lower than the given one.
func (s *Store) before(kind string, revision int64) clientv3.Op {
	return clientv3.OpDelete(s.prefix+kind, clientv3.WithRange(fmt.Sprintf("%s%s"+numberOfRevision, s.prefix, kind, revision)))
}

// between returns the operations that delete the chunks from the first of some blobs to a
// revision, except those of the blobs. The blobs are in order of their revisions.
func (s *Store) between(kind string, last int64, kept ...Blob) (ops []clientv3.Op) {
	from := ""
	for _, b := range kept {
		prefix := s.prefix + blobPrefix(kind, b.Revision, b.ID)
		if from == "" {
			from = fmt.Sprintf("%s%s"+numberOfRevision+"/", s.prefix, kind, b.Revision)
		}
		ops = append(ops, clientv3.OpDelete(from, clientv3.WithRange(prefix)))
		from = clientv3.GetPrefixRangeEnd(prefix)
	}
	if from == "" {
		return nil
	}
	return append(ops, clientv3.OpDelete(from, clientv3.WithRange(fmt.Sprintf("%s%s"+numberOfRevision, s.prefix, kind, last+1))))
}
