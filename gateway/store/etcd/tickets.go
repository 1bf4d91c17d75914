package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
)

// ticketsKey holds the secrets of TLS tickets, sealed. They belong to no revision.
const ticketsKey = "tickets"

func ticketsPlace(h *Head) seal.Place {
	return seal.Place{Bucket: []byte(ticketsKey), Key: []byte(h.Instance)}
}

// Tickets reads the secrets of TLS tickets, and etcd's revision of their last change. If
// etcd has no secrets, both are zero.
func (s *Store) Tickets(ctx context.Context, h *Head) (content []byte, mod int64, err error) {
	resp, err := s.txn(ctx, nil, clientv3.OpGet(s.prefix+ticketsKey))
	if err != nil {
		return nil, 0, err
	}
	kvs := resp.Responses[0].GetResponseRange().GetKvs()
	if len(kvs) == 0 {
		return nil, 0, nil
	}
	content, err = h.key.sealer.Open(ticketsPlace(h), kvs[0].Value)
	if err != nil {
		return nil, 0, fmt.Errorf("etcd: %s: %w", kvs[0].Key, err)
	}
	return content, kvs[0].ModRevision, nil
}

// PutTickets stores the secrets of TLS tickets in the fleet of a head, and returns etcd's
// revision of the change. It returns ErrConflict unless mod is the revision of their last
// change; 0: there must be none.
func (s *Store) PutTickets(ctx context.Context, h *Head, content []byte, mod int64) (int64, error) {
	resp, err := s.txn(ctx, []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(s.prefix+ticketsKey), "=", mod),
		clientv3.Compare(clientv3.Value(s.prefix+keyKey), "=", h.key.record), // else other members cannot open the secrets
	}, clientv3.OpPut(s.prefix+ticketsKey, string(h.key.sealer.Seal(ticketsPlace(h), content))))
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, ErrConflict
	}
	return resp.Header.GetRevision(), nil
}
