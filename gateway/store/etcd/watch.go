package etcd

import (
	"context"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Wait returns when the head may have changed since h was read: after an event, and when
// the watch fails. The head may have changed even if Wait returns an error. The error
// says why the watch ended; it is nil after an event.
func (s *Store) Wait(ctx context.Context, h *Head) error {
	return s.wait(ctx, headKey, h.Read)
}

// WaitGateways returns when the head or a gateway may have changed since h was read, like
// Wait.
func (s *Store) WaitGateways(ctx context.Context, h *Head) error {
	ctx, cancel := context.WithCancel(ctx)
	var waits sync.WaitGroup
	defer waits.Wait()
	defer cancel()
	ended := make(chan error, 4)
	waits.Go(func() { ended <- s.wait(ctx, headKey, h.Read) })
	waits.Go(func() { ended <- s.wait(ctx, gatewayPrefix, h.Read, clientv3.WithPrefix()) })
	waits.Go(func() { ended <- s.wait(ctx, alivePrefix, h.Read, clientv3.WithPrefix()) })
	waits.Go(func() { ended <- s.wait(ctx, duplicatePrefix, h.Read, clientv3.WithPrefix()) })
	return <-ended
}

// wait watches a key from the etcd revision that follows the read. That revision can be
// compacted only if others write in between, whereas the revision of the key's last
// change may have been compacted long ago.
func (s *Store) wait(ctx context.Context, name string, read int64, opts ...clientv3.OpOption) error {
	// The end of the context ends the watch.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opts = append(opts, clientv3.WithRev(read+1), clientv3.WithProgressNotify())
	for resp := range s.client.Watch(clientv3.WithRequireLeader(ctx), s.prefix+name, opts...) {
		switch {
		case resp.Err() != nil:
			return explain(ctx, resp.Err())
		case len(resp.Events) > 0:
			return nil
		}
	}
	return context.Canceled
}
