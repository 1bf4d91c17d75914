package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Wait returns when the head may have changed since h was read: after an event, and when
// the watch fails. The head may have changed even if Wait returns an error. The error
// says why the watch ended; it is nil after an event.
func (s *Store) Wait(ctx context.Context, h *Head) error {
	return s.wait(ctx, headKey, h.Read)
}

// wait watches a key from the revision after that of a read. That revision can be
// compacted only if others write in between. The revision of the key's last change may
// have been compacted long ago.
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
