package etcd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// format is the version of the layout.
const format = 1

// ErrEmpty reports that the prefix holds no fleet.
var ErrEmpty = errors.New("etcd holds no fleet under the prefix")

// ErrWrongKey reports that the fleet is sealed with another key.
var ErrWrongKey = errors.New("the fleet in etcd is sealed with another key: give every gateway the same --seal-key-file")

// A fleetKey is the content of the key that Create writes once.
type fleetKey struct {
	Format   int
	Instance string // identifies the fleet
	Wrapped  []byte // the data key, wrapped by the seal key

	sealer *seal.Sealer
	record string // as stored
}

// A Blob is content in chunks: the record of a revision, or a checkpoint.
type Blob struct {
	Revision int64
	ID       string // the commit that wrote the blob
	Chunks   int
	Bytes    int
}

// A Head identifies the revision in force, and refers to all stored content.
type Head struct {
	Format   int
	Instance string
	Records  []Blob // the records of the latest revisions, oldest first and without gaps; the last one made the revision in force
	Sum      uint64 // the checksum over all resources

	// Checkpoint is a complete state. The records after it lead to the state in force.
	// The zero value is the empty state.
	Checkpoint Blob

	// Waiting is the Pending of the revision in force, as JSON. It is empty if the revision
	// needs no confirmation.
	Waiting json.RawMessage `json:",omitempty"`

	// Amendment identifies the latest call of Amend. It is empty before the first call.
	Amendment string `json:",omitempty"`

	// Since is the time when the revision in force was committed, by the clock of the
	// gateway that made the commit.
	Since time.Time

	Cluster uint64 `json:"-"` // etcd's cluster ID
	Mod     int64  `json:"-"` // etcd's revision of the last change of the head
	Read    int64  `json:"-"` // etcd's revision when the head was read
	Tickets int64  `json:"-"` // etcd's revision of the last change of the ticket secrets; 0: none
	key     *fleetKey
}

// Revision returns the number of the revision in force.
func (h *Head) Revision() int64 { return h.last().Revision }

// ID identifies the commit that made the revision in force. It is empty for revision 0.
func (h *Head) ID() string { return h.last().ID }

func (h *Head) last() Blob {
	if len(h.Records) == 0 {
		return Blob{}
	}
	return h.Records[len(h.Records)-1]
}

// Find returns the index in Records of the record after a revision. id is the commit that
// made the revision. ok is false if the head no longer lists that revision, or lists
// another commit for it.
func (h *Head) Find(revision int64, id string) (next int, ok bool) {
	if revision == 0 {
		return 0, len(h.Records) == 0 || h.Records[0].Revision == 1
	}
	i := slices.IndexFunc(h.Records, func(b Blob) bool { return b.Revision == revision && b.ID == id })
	return i + 1, i >= 0
}

// Oldest returns the number of the oldest stored record, or 0.
func (h *Head) Oldest() int64 {
	if len(h.Records) == 0 {
		return 0
	}
	return h.Records[0].Revision
}

// Pending returns the revision in force if it waits to be confirmed, or nil.
func (h *Head) Pending() (*adminv1.Pending, error) {
	if len(h.Waiting) == 0 {
		return nil, nil
	}
	p := new(adminv1.Pending)
	if err := protojson.Unmarshal(h.Waiting, p); err != nil {
		return nil, fmt.Errorf("the head's pending revision: %w", err)
	}
	return p, nil
}

// await sets the revision that waits to be confirmed; nil: none.
func (h *Head) await(p *adminv1.Pending) (err error) {
	h.Waiting = nil
	if p != nil {
		h.Waiting, err = protojson.Marshal(p)
	}
	return err
}

// encode returns the sealed head.
func (h *Head) encode() (string, error) {
	plain, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	return string(h.key.sealer.Seal(seal.Place{Bucket: []byte(headKey), Key: []byte(h.Instance)}, plain)), nil
}

// Head reads the head from a quorum. It returns ErrEmpty if there is no fleet.
func (s *Store) Head(ctx context.Context) (*Head, error) {
	resp, err := s.txn(ctx, nil, clientv3.OpGet(s.prefix+keyKey), clientv3.OpGet(s.prefix+headKey), clientv3.OpGet(s.prefix+ticketsKey, clientv3.WithKeysOnly()))
	if err != nil {
		return nil, err
	}
	keys, heads := resp.Responses[0].GetResponseRange().GetKvs(), resp.Responses[1].GetResponseRange().GetKvs()
	switch {
	case len(keys) == 0 && len(heads) == 0:
		return nil, ErrEmpty
	case len(keys) == 0 || len(heads) == 0:
		return nil, fmt.Errorf("etcd: the keys below %s are damaged: %shead and %skey must exist together", s.prefix, s.prefix, s.prefix)
	}
	key, err := s.unwrap(keys[0].Value)
	if err != nil {
		return nil, err
	}
	plain, err := key.sealer.Open(seal.Place{Bucket: []byte(headKey), Key: []byte(key.Instance)}, heads[0].Value)
	if err != nil {
		return nil, fmt.Errorf("etcd: the head: %w", err)
	}
	h := &Head{}
	if err := json.Unmarshal(plain, h); err != nil {
		return nil, fmt.Errorf("etcd: the head: %w", err)
	}
	if h.Format != format {
		return nil, fmt.Errorf("etcd: the fleet has format %d, and this version knows format %d: upgrade this gateway", h.Format, format)
	}
	h.key, h.Cluster, h.Mod, h.Read = key, resp.Header.GetClusterId(), heads[0].ModRevision, resp.Header.GetRevision()
	if tickets := resp.Responses[2].GetResponseRange().GetKvs(); len(tickets) > 0 {
		h.Tickets = tickets[0].ModRevision
	}
	return h, nil
}

// unwrap opens the data key of the fleet.
func (s *Store) unwrap(value []byte) (*fleetKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &fleetKey{}
	if err := json.Unmarshal(value, k); err != nil || k.Instance == "" {
		return nil, fmt.Errorf("etcd: %s%s is damaged: %w", s.prefix, keyKey, errors.Join(err, errors.New("it has no instance ID")))
	}
	if k.Format != format {
		return nil, fmt.Errorf("etcd: the fleet has format %d, and this version knows format %d: upgrade this gateway", k.Format, format)
	}
	if o := s.opened; o != nil && o.Instance == k.Instance && slices.Equal(o.Wrapped, k.Wrapped) {
		return o, nil
	}
	var err error
	k.record = string(value)
	if k.sealer, err = s.key.Unwrap(k.Wrapped); err != nil {
		return nil, ErrWrongKey
	}
	s.opened = k
	return k, nil
}

// Create makes an empty fleet, unless another gateway has just made it, and returns its
// head.
func (s *Store) Create(ctx context.Context) (*Head, error) {
	sealer, wrapped, err := s.key.NewSealer()
	if err != nil {
		return nil, err
	}
	k := &fleetKey{Format: format, Instance: rand.Text(), Wrapped: wrapped, sealer: sealer}
	record, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	head, err := (&Head{Format: format, Instance: k.Instance, Since: s.now(), key: k}).encode()
	if err != nil {
		return nil, err
	}
	absent := func(name string) clientv3.Cmp {
		return clientv3.Compare(clientv3.CreateRevision(s.prefix+name), "=", 0)
	}
	// Another gateway may have made a fleet first, so read the head of the fleet
	// that exists.
	if _, err = s.txn(ctx, []clientv3.Cmp{absent(keyKey), absent(headKey)},
		clientv3.OpPut(s.prefix+keyKey, string(record)), clientv3.OpPut(s.prefix+headKey, head)); err != nil {
		return nil, err
	}
	return s.Head(ctx)
}
