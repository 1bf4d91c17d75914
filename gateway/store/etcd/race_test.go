package etcd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
)

// A call is a commit on top of a base, or a read if made is empty.
type call struct{ base, made string }

// An outcome is what a call returned: the ID of the head of a read, and whether a commit
// succeeded or is unknown.
type outcome struct {
	head        string
	ok, unknown bool
}

// casModel is a register that a commit changes only from its base.
var casModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		c, o := in.(call), out.(outcome)
		switch {
		case c.made == "":
			return o.head == state, state
		case o.unknown && c.base == state:
			return true, c.made
		case o.unknown:
			return true, state
		case o.ok:
			return c.base == state, c.made
		default:
			return c.base != state, state
		}
	},
}

// Two writers race, and a reader reads all the while: there is one order of all commits and reads that
// explains every result. DRAWBRIDGE_RACES sets the number of commits that each writer attempts.
func TestRacingWritersAreLinearizable(t *testing.T) {
	t.Parallel()
	rounds := 500
	if n, err := strconv.Atoi(os.Getenv("DRAWBRIDGE_RACES")); err == nil {
		rounds = n
	}
	c := etcdtest.Start(t, 1)
	create(t, open(t, c))
	began := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	commits := 0
	note := func(client int, in call, at time.Duration, out outcome) {
		mu.Lock()
		defer mu.Unlock()
		if out.ok && in.made != "" {
			commits++
		}
		history = append(history, porcupine.Operation{ClientId: client, Input: in, Call: int64(at), Output: out, Return: int64(time.Since(began))})
	}
	var writers, readers sync.WaitGroup
	for id := range 2 {
		s := open(t, c)
		writers.Go(func() {
			position, h := nothing(), (*Head)(nil)
			for i := range rounds {
				if h == nil { // lost: follow the winner
					at := time.Since(began)
					var err error
					if h, position, err = s.follow(t, position); err != nil {
						t.Error(err)
						return
					}
					note(id, call{}, at, outcome{head: h.ID()})
				}
				d := draft(t, position.State, put(upstream(fmt.Sprint("w", id), i)))
				at := time.Since(began)
				next, err := s.Commit(t.Context(), h, d, recordOf(d, store.Edit{}))
				made := fmt.Sprint(id, "/", i)
				if err == nil {
					made = next.ID()
				}
				note(id, call{h.ID(), made}, at, outcome{ok: err == nil, unknown: errors.As(err, new(*UnknownError))})
				switch {
				case err == nil:
					h, position = next, Position{d.State(), next.ID()}
				case errors.Is(err, ErrConflict):
					h = nil
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	reader := open(t, c)
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			at := time.Since(began)
			h, err := reader.Head(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			note(2, call{}, at, outcome{head: h.ID()})
		}
	})
	writers.Wait()
	close(done)
	readers.Wait()
	final := read(t, reader, nothing())
	if final.State.Revision() != int64(commits) {
		t.Errorf("%d commits were acknowledged, and the head is revision %d", commits, final.State.Revision())
	}
	if result := porcupine.CheckOperationsTimeout(casModel, history, 5*time.Minute); result != porcupine.Ok {
		t.Errorf("the history of %d operations is not linearizable: %s", len(history), result)
	}
	t.Logf("%d commits of %d attempts, %d operations, %v", commits, 2*rounds, len(history), time.Since(began).Round(time.Millisecond))
}

// follow reads the head and its state.
func (s *Store) follow(t *testing.T, from Position) (*Head, Position, error) {
	for {
		h, err := s.Head(t.Context())
		if err != nil {
			return nil, from, err
		}
		r, err := s.Read(t.Context(), h, from)
		if errors.Is(err, ErrMoved) {
			continue
		}
		if err != nil {
			return nil, from, err
		}
		return h, Position{r.State, h.ID()}, nil
	}
}
