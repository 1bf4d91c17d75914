package etcd

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
)

// Keys of the gateways of a fleet, below its prefix.
const (
	gatewayPrefix = "gateway/"  // gateway/ID: the gateway's description of itself, sealed
	alivePrefix   = "alive/"    // alive/ID: exists while the gateway is connected
	conductorKey  = "conductor" // the gateway that conducts rollouts; exists while it is connected
)

// A Presence is a key that exists until Leave is called or the lease is lost.
type Presence struct {
	store *Store
	lease clientv3.LeaseID
	lost  chan struct{}
}

// Join makes a gateway count as connected until ctx ends or Leave is called.
func (s *Store) Join(ctx context.Context, id string) (*Presence, error) {
	return s.present(ctx, alivePrefix+id, "")
}

// Lead makes a gateway the conductor of rollouts until ctx ends or Leave is called. It
// returns nil if another gateway is the conductor.
func (s *Store) Lead(ctx context.Context, id string) (*Presence, error) {
	resp, err := s.txn(ctx, nil, clientv3.OpGet(s.prefix+conductorKey, clientv3.WithKeysOnly()))
	if err != nil || len(resp.Responses[0].GetResponseRange().GetKvs()) > 0 {
		return nil, err
	}
	return s.present(ctx, conductorKey, id, clientv3.Compare(clientv3.CreateRevision(s.prefix+conductorKey), "=", 0))
}

// present puts a key that exists until ctx ends or Leave is called. It returns nil if a
// condition does not hold.
func (s *Store) present(ctx context.Context, name, value string, conditions ...clientv3.Cmp) (*Presence, error) {
	limited, cancel := s.limited(ctx)
	defer cancel()
	lease, err := s.client.Grant(limited, int64(s.alive/time.Second))
	if err != nil {
		return nil, explain(limited, err)
	}
	p := &Presence{store: s, lease: lease.ID, lost: make(chan struct{})}
	present := false
	defer func() {
		if !present {
			p.Leave() // etcd may have put the key, even if the request failed
		}
	}()
	resp, err := s.txn(ctx, conditions, clientv3.OpPut(s.prefix+name, value, clientv3.WithLease(lease.ID)))
	if err != nil || !resp.Succeeded {
		return nil, err
	}
	renewed, err := s.client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	present = true
	go func() { // ends with ctx, and with the lease
		defer close(p.lost)
		for range renewed {
		}
	}()
	return p, nil
}

// Lost returns a channel that is closed once the lease is lost, or ctx has ended.
func (p *Presence) Lost() <-chan struct{} { return p.lost }

// Leave deletes the key. If the request fails, the key expires with its lease.
func (p *Presence) Leave() {
	ctx, cancel := p.store.limited(context.Background())
	defer cancel()
	_, _ = p.store.client.Revoke(ctx, p.lease)
}

// A Description is a gateway's description of itself.
type Description struct {
	ID        string
	Content   []byte
	Connected bool
}

func gatewayPlace(id string) seal.Place {
	return seal.Place{Bucket: []byte(strings.TrimSuffix(gatewayPrefix, "/")), Key: []byte(id)}
}

// Describe stores a gateway's description of itself, in the fleet of a head.
func (s *Store) Describe(ctx context.Context, h *Head, id string, content []byte) error {
	_, err := s.txn(ctx, nil, clientv3.OpPut(s.prefix+gatewayPrefix+id, string(h.key.sealer.Seal(gatewayPlace(id), content))))
	return err
}

// Forget deletes a gateway's description of itself, unless the gateway is
// connected.
func (s *Store) Forget(ctx context.Context, id string) error {
	_, err := s.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.prefix+alivePrefix+id), "=", 0)}, clientv3.OpDelete(s.prefix+gatewayPrefix+id))
	return err
}

// Gateways returns the descriptions of the gateways of a fleet, by ID.
func (s *Store) Gateways(ctx context.Context, h *Head) ([]Description, error) {
	resp, err := s.txn(ctx, nil, clientv3.OpGet(s.prefix+gatewayPrefix, clientv3.WithPrefix()), clientv3.OpGet(s.prefix+alivePrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly()))
	if err != nil {
		return nil, err
	}
	alive := map[string]bool{}
	for _, kv := range resp.Responses[1].GetResponseRange().GetKvs() {
		alive[strings.TrimPrefix(string(kv.Key), s.prefix+alivePrefix)] = true
	}
	var out []Description
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		id := strings.TrimPrefix(string(kv.Key), s.prefix+gatewayPrefix)
		content, err := h.key.sealer.Open(gatewayPlace(id), kv.Value)
		if err != nil {
			return nil, fmt.Errorf("etcd: %s: %w", kv.Key, err)
		}
		out = append(out, Description{ID: id, Content: content, Connected: alive[id]})
	}
	return out, nil
}
