package limit

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// pass returns what has been spent, encoded and decoded as between two processes.
func pass(t *testing.T, l *Limiter) (s State) {
	t.Helper()
	text, err := json.Marshal(l.State(time.Now()))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheNextProcessContinuesTheRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{Rate: Rate{Count: 10, Period: time.Minute}, RatePerClient: Rate{Count: 4, Period: time.Minute}}
		host := netip.MustParseAddr("2001:db8::1")
		old := New()
		time.Sleep(time.Hour)
		for _, client := range []netip.Addr{alice, host} {
			if n := taken(old, client, limits); n != 4 {
				t.Fatalf("%v: %d", client, n)
			}
		}
		s := pass(t, old)
		if len(s.Clients) != 2 || s.Shared == 0 {
			t.Fatalf("%+v", s)
		}
		next := New()
		next.Adopt(s, time.Now())
		if r := enter(next, alice, limits); r != (Refusal{OfRatePerClient, 15 * time.Second}) {
			t.Errorf("%+v", r)
		}
		if r := enter(next, netip.MustParseAddr("2001:db8::2"), limits); r.Kind != OfRatePerClient {
			t.Errorf("another address of the host's network: %+v", r)
		}
		if n := taken(next, bob, limits); n != 2 { // what the others have left of the shared rate
			t.Errorf("%d", n)
		}
		time.Sleep(15 * time.Second)
		if n := taken(next, alice, limits); n != 1 {
			t.Errorf("15s later: %d", n)
		}
		time.Sleep(time.Hour)
		if s := next.State(time.Now()); !s.IsZero() {
			t.Errorf("an hour later: %+v", s)
		}
	})
}

// A Limiter that has served clients itself keeps the larger amount.
func TestAnAdoptedStateNeverRefillsABucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{Rate: Rate{Count: 2, Period: time.Hour}, RatePerClient: Rate{Count: 2, Period: time.Hour}}
		old, next := New(), New()
		enter(old, alice, limits)
		taken(next, alice, limits)
		next.Adopt(pass(t, old), time.Now())
		next.Adopt(State{}, time.Now())
		next.Adopt(State{Clients: []ClientState{{none, time.Hour}, {alice, -time.Hour}}}, time.Now())
		if r := enter(next, alice, limits); r.Kind != OfRatePerClient {
			t.Errorf("%+v", r)
		}
		if r := enter(next, bob, limits); r.Kind != OfRate {
			t.Errorf("%+v", r)
		}
	})
}

func TestAdoptedClientsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s State
		for i := range MaxClients + 1000 {
			s.Clients = append(s.Clients, ClientState{netip.MustParseAddr(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)), time.Hour})
		}
		l := New()
		l.Adopt(s, time.Now())
		if n := len(l.State(time.Now()).Clients); n > MaxClients || n < MaxClients/2 {
			t.Errorf("%d clients", n)
		}
	})
}
