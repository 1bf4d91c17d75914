package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
)

// Keys of the gateways of a fleet, below its prefix.
const (
	gatewayPrefix   = "gateway/"   // gateway/ID: the gateway's description of itself, sealed
	alivePrefix     = "alive/"     // alive/ID: the Claim of a gateway; exists while the gateway is connected
	duplicatePrefix = "duplicate/" // duplicate/ID/PROCESS: a gateway whose ID another one has claimed, sealed; exists while it is connected
	conductorKey    = "conductor"  // the gateway that conducts rollouts; exists while it is connected
)

// ErrDisplaced reports that another process has claimed the ID of a gateway.
var ErrDisplaced = errors.New("another process has claimed the ID of the gateway")

// ErrCloned reports that a process with the same claim described the gateway: a machine was
// cloned while the gateway ran.
var ErrCloned = errors.New("a clone of this process describes the gateway")

// A Claim says which process uses the ID of a gateway.
type Claim struct {
	Directory string `json:"directory"` // identifies the data directory
	Process   string `json:"process"`   // identifies the process
}

// A TakenError reports that another gateway has claimed an ID.
type TakenError struct {
	ID   string
	By   Claim
	Read int64 // etcd's revision when the claim was read
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("another gateway has claimed the ID %q", e.ID)
}

// A Presence is a key that exists until Leave is called or the lease is lost.
type Presence struct {
	store *Store
	name  string // below the prefix
	mod   int64  // etcd's revision of the put
	lease clientv3.LeaseID
	lost  chan struct{}

	described int64 // etcd's revision of the latest description; 0: unknown. Only Describe uses it.
}

// Join claims the ID of a gateway, which then counts as connected until ctx ends or Leave is called.
// It returns a *TakenError if another gateway has the ID. The claim of a process with the same data
// directory is replaced if restarted is true: that process has ended, or hands over to this one.
func (s *Store) Join(ctx context.Context, id string, own Claim, restarted bool) (*Presence, error) {
	value, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	resp, err := s.txn(ctx, nil, clientv3.OpGet(s.prefix+alivePrefix+id))
	if err != nil {
		return nil, err
	}
	mod := int64(0)
	if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
		var by Claim
		if err := json.Unmarshal(kvs[0].Value, &by); err != nil {
			return nil, fmt.Errorf("etcd: %s: %w", kvs[0].Key, err)
		}
		if by.Process != own.Process && (!restarted || by.Directory != own.Directory) {
			return nil, &TakenError{ID: id, By: by, Read: resp.Header.GetRevision()}
		}
		mod = kvs[0].ModRevision
	}
	p, err := s.present(ctx, alivePrefix+id, string(value), clientv3.Compare(clientv3.ModRevision(s.prefix+alivePrefix+id), "=", mod))
	if err == nil && p == nil {
		err = ErrDisplaced
	}
	return p, err
}

// WaitClaim returns when the claim that e reports may have changed, like Wait.
func (s *Store) WaitClaim(ctx context.Context, e *TakenError) error {
	return s.wait(ctx, alivePrefix+e.ID, e.Read)
}

// Duplicate reports a process whose ID another gateway has claimed, until ctx ends or Leave is called.
func (s *Store) Duplicate(ctx context.Context, h *Head, id, process string, content []byte) (*Presence, error) {
	name := id + "/" + process
	return s.present(ctx, duplicatePrefix+name, string(h.key.sealer.Seal(duplicatePlace(name), content)))
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
	p := &Presence{store: s, name: name, lease: lease.ID, lost: make(chan struct{})}
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
	p.mod = resp.Header.GetRevision()
	ctx, stop := context.WithCancel(ctx)
	renewed, err := s.client.KeepAlive(ctx, lease.ID)
	if err != nil {
		stop()
		return nil, fmt.Errorf("etcd: %w", err)
	}
	present = true
	var watching sync.WaitGroup
	watching.Go(func() { // ends with ctx, and with the lease
		defer stop()
		for range renewed {
		}
	})
	watching.Go(func() {
		defer stop()
		p.awaitChange(ctx)
	})
	go func() {
		watching.Wait()
		close(p.lost)
	}()
	return p, nil
}

// watchPause is how long awaitChange waits before it reads the key again.
const watchPause = time.Second

// awaitChange waits until the key is deleted or put by another process, or ctx ends.
func (p *Presence) awaitChange(ctx context.Context) {
	for read := p.mod; ; {
		failed := p.store.wait(ctx, p.name, read) != nil
		resp, err := p.store.txn(ctx, nil, clientv3.OpGet(p.store.prefix+p.name, clientv3.WithKeysOnly()))
		if err == nil {
			if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) == 0 || kvs[0].ModRevision != p.mod {
				return
			}
			read = resp.Header.GetRevision()
		}
		if failed || err != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(watchPause):
			}
		}
	}
}

// Lost returns a channel that is closed once the lease is lost, another process has put the key, or
// ctx has ended.
func (p *Presence) Lost() <-chan struct{} { return p.lost }

// Leave deletes the key, unless another process has put it since. If the request fails, the key
// expires with its lease.
func (p *Presence) Leave() {
	ctx, cancel := p.store.limited(context.Background())
	defer cancel()
	_, _ = p.store.client.Revoke(ctx, p.lease)
}

// A Description is a gateway's description of itself.
type Description struct {
	ID         string
	Content    []byte
	Connected  bool
	Duplicates [][]byte // see Duplicate
}

func gatewayPlace(id string) seal.Place {
	return seal.Place{Bucket: []byte(strings.TrimSuffix(gatewayPrefix, "/")), Key: []byte(id)}
}

// duplicatePlace returns the place of the report of a duplicate; name is ID/PROCESS.
func duplicatePlace(name string) seal.Place {
	return seal.Place{Bucket: []byte(strings.TrimSuffix(duplicatePrefix, "/")), Key: []byte(name)}
}

// Describe stores the gateway's description of itself, in the fleet of a head. p is the claim of the
// gateway's ID. Describe returns ErrDisplaced if the gateway has lost the ID, and ErrCloned if
// another process uses the same claim.
func (p *Presence) Describe(ctx context.Context, h *Head, content []byte) error {
	s, id := p.store, strings.TrimPrefix(p.name, alivePrefix)
	key, holds := s.prefix+gatewayPrefix+id, clientv3.Compare(clientv3.ModRevision(s.prefix+p.name), "=", p.mod)
	conditions := []clientv3.Cmp{holds}
	if p.described > 0 {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", p.described))
	}
	p.described = 0 // until etcd answers
	resp, err := s.txn(ctx, conditions, clientv3.OpPut(key, string(h.key.sealer.Seal(gatewayPlace(id), content))))
	switch {
	case err != nil:
		return err
	case resp.Succeeded:
		p.described = resp.Header.GetRevision()
		return nil
	}
	if resp, err = s.txn(ctx, []clientv3.Cmp{holds}); err != nil {
		return err
	}
	if resp.Succeeded {
		return ErrCloned
	}
	return ErrDisplaced
}

// Forget deletes a gateway's description of itself, unless the gateway is
// connected.
func (s *Store) Forget(ctx context.Context, id string) error {
	_, err := s.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.prefix+alivePrefix+id), "=", 0)}, clientv3.OpDelete(s.prefix+gatewayPrefix+id))
	return err
}

// Gateways returns the descriptions of the gateways of a fleet, by ID.
func (s *Store) Gateways(ctx context.Context, h *Head) ([]Description, error) {
	resp, err := s.txn(ctx, nil, clientv3.OpGet(s.prefix+gatewayPrefix, clientv3.WithPrefix()), clientv3.OpGet(s.prefix+alivePrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly()),
		clientv3.OpGet(s.prefix+duplicatePrefix, clientv3.WithPrefix()))
	if err != nil {
		return nil, err
	}
	alive, duplicates := map[string]bool{}, map[string][][]byte{}
	for _, kv := range resp.Responses[1].GetResponseRange().GetKvs() {
		alive[strings.TrimPrefix(string(kv.Key), s.prefix+alivePrefix)] = true
	}
	for _, kv := range resp.Responses[2].GetResponseRange().GetKvs() {
		name := strings.TrimPrefix(string(kv.Key), s.prefix+duplicatePrefix)
		content, err := h.key.sealer.Open(duplicatePlace(name), kv.Value)
		if err != nil {
			return nil, fmt.Errorf("etcd: %s: %w", kv.Key, err)
		}
		id := name[:max(strings.LastIndex(name, "/"), 0)]
		duplicates[id] = append(duplicates[id], content)
	}
	var out []Description
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		id := strings.TrimPrefix(string(kv.Key), s.prefix+gatewayPrefix)
		content, err := h.key.sealer.Open(gatewayPlace(id), kv.Value)
		if err != nil {
			return nil, fmt.Errorf("etcd: %s: %w", kv.Key, err)
		}
		out = append(out, Description{ID: id, Content: content, Connected: alive[id], Duplicates: duplicates[id]})
	}
	return out, nil
}
