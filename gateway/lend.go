package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// lendStore makes writes fail, and closes the store so that the new process of an upgrade
// can open it. It waits for a commit in progress.
func (w *writer) lendStore() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return errors.New("the gateway is shutting down")
	}
	if p := w.pending.Load(); p != nil {
		return fmt.Errorf("%v: confirm it or roll it back first, because a new process would roll it back", p)
	}
	if err := w.store.Lend(); err != nil {
		return err
	}
	w.lent = true
	return nil
}

// reclaimEvery is how long reclaimStore waits between attempts.
const reclaimEvery = 50 * time.Millisecond

// reclaimStore opens the store again, and accepts writes. The new process was killed but
// may not have ended yet, so reclaimStore retries until ctx ends.
func (w *writer) reclaimStore(ctx context.Context) error {
	for logged := false; ; {
		err := w.tryReclaim()
		if err == nil {
			return nil
		}
		if !logged {
			logged = true
			w.log.Error("cannot reopen the store; retrying, and refusing writes meanwhile", "error", err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(reclaimEvery):
		}
	}
}

func (w *writer) tryReclaim() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.lent {
		return nil
	}
	err := w.store.Reclaim()
	w.lent = err != nil
	return err
}

// giveStore leaves the store to the other process. Later writes fail.
func (w *writer) giveStore() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.store.Give()
}
