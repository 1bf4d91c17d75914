package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// elsewhere returns the revisions of another store: each state, and the record that leads
// to it.
func elsewhere(t *testing.T, n int) (states []*store.State, records []*revisions.Record) {
	state := new(store.State)
	for i := range n {
		d := draft(t, state, store.Edit{Puts: []store.Put{{Resource: upstream(i)}, {Resource: upstream(100)}}})
		_, r := recorded(d)
		state = d.State()
		states, records = append(states, state), append(records, r)
	}
	return states, records
}

// follow makes a state the copy, as a member of a fleet does.
func follow(t *testing.T, s *Store, state *store.State, records []*revisions.Record, change ...func(*Copy)) {
	t.Helper()
	c := Copy{State: state, Changed: state.Changed(s.State()), Records: records, Position: fmt.Append(nil, "at ", state.Revision())}
	for _, f := range change {
		f(&c)
	}
	if err := s.Follow(c); err != nil {
		t.Fatal(err)
	}
}

func TestACopyFollowsAnotherStore(t *testing.T) {
	states, records := elsewhere(t, 6)
	for name, c := range map[string]struct {
		follow func(*testing.T, *Store)
		want   string // revisions
	}{
		"step by step": {func(t *testing.T, s *Store) {
			for i := range states {
				follow(t, s, states[i], records[i:i+1])
			}
		}, "[6 5 4 3 2 1]"},
		"several at once": {func(t *testing.T, s *Store) {
			follow(t, s, states[1], records[:2])
			follow(t, s, states[5], records[2:])
		}, "[6 5 4 3 2 1]"},
		"with a gap": {func(t *testing.T, s *Store) {
			follow(t, s, states[1], records[:2])
			follow(t, s, states[5], records[4:])
		}, "[6 5]"},
		"without records": {func(t *testing.T, s *Store) {
			follow(t, s, states[1], records[:2])
			follow(t, s, states[5], nil)
		}, "[]"},
		"with records that end too early": {func(t *testing.T, s *Store) {
			follow(t, s, states[1], records[:2])
			follow(t, s, states[5], records[2:4])
		}, "[]"},
		"back to an earlier state": {func(t *testing.T, s *Store) {
			follow(t, s, states[4], records[:5])
			follow(t, s, states[2], records[:3])
			follow(t, s, states[5], records[3:])
		}, "[6 5 4 3 2 1]"},
		"confirmed later": {func(t *testing.T, s *Store) {
			follow(t, s, states[5], records, func(c *Copy) { c.Pending = &adminv1.Pending{Revision: 6} })
			confirmed := proto.Clone(records[5].Revision).(*adminv1.Revision)
			confirmed.ConfirmPrincipal = "me"
			follow(t, s, states[5], []*revisions.Record{{Revision: confirmed}})
			if r, err := s.Revision(6); err != nil || r.GetConfirmPrincipal() != "me" {
				t.Errorf("%v, %v", r, err)
			}
		}, "[6 5 4 3 2 1]"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			key := sealKey(t, "a")
			s := openSealed(t, dir, key)
			c.follow(t, s)
			s.Close()
			s = openSealed(t, dir, key)
			if !sameResources(s.State(), states[5]) || string(s.Position()) != "at 6" || s.Pending() != nil {
				t.Errorf("revision %d: %v, position %q, pending %v", s.State().Revision(), s.State().All(), s.Position(), s.Pending())
			}
			if got := fmt.Sprint(numbers(t, s, 6)); got != c.want {
				t.Errorf("stored: %s, want %s", got, c.want)
			}
			s.Close()
			other := sealKey(t, "b")
			if _, err := Rekey(dir, key, other); err != nil {
				t.Fatal(err)
			}
			if s = openSealed(t, dir, other); string(s.Position()) != "at 6" {
				t.Errorf("position after a rekey: %q", s.Position())
			}
		})
	}
}

func TestAPendingRevisionOfACopySurvives(t *testing.T) {
	states, records := elsewhere(t, 2)
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, dir)
	if s.Position() != nil {
		t.Error("a new store has a position in a fleet")
	}
	follow(t, s, states[1], records, func(c *Copy) { c.Pending = &adminv1.Pending{Revision: 2, Comment: time.Hour.String()} })
	s.Close()
	if s = open(t, dir); s.Pending().GetComment() != time.Hour.String() {
		t.Errorf("%v", s.Pending())
	}
}

func TestTicketSecretsAreKeptSealed(t *testing.T) {
	const secret = "a secret of tickets"
	dir := filepath.Join(t.TempDir(), "data")
	key, other := sealKey(t, "a"), sealKey(t, "b")
	s := openSealed(t, dir, key)
	if s.Tickets() != nil {
		t.Error("a new store has ticket secrets")
	}
	if err := s.KeepTickets([]byte(secret)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if bytes.Contains(content(t, dir), []byte(secret)) {
		t.Error("the file holds the secrets in the clear")
	}
	if _, err := Check(dir, nil); err != nil {
		t.Error(err)
	}
	if _, err := Rekey(dir, key, other); err != nil {
		t.Fatal(err)
	}
	s = openSealed(t, dir, other)
	if string(s.Tickets()) != secret {
		t.Errorf("after a rekey: %q", s.Tickets())
	}
	if err := s.Detach(); err != nil || s.Tickets() != nil {
		t.Errorf("a store that left its fleet: %q, %v", s.Tickets(), err)
	}
	s.Close()
	if s = openSealed(t, dir, other); s.Tickets() != nil {
		t.Errorf("a store that left its fleet, opened again: %q", s.Tickets())
	}
	clear := open(t, filepath.Join(t.TempDir(), "data"))
	if err := clear.KeepTickets([]byte(secret)); !errors.As(err, new(*SealError)) {
		t.Errorf("in a store that is not sealed: %v", err)
	}
}
