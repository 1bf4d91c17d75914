package upstream

import (
	"context"
	"math"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// three returns the options of an upstream with three endpoints.
func three(p Policy) Options {
	o := Options{Policy: p, SlowStart: 10 * time.Second}
	for i := range 3 {
		o.Endpoints = append(o.Endpoints, EndpointOptions{Network: "tcp", Address: strconv.Itoa(i)})
	}
	return o
}

// shareOf returns the share of many picks that an endpoint gets.
func shareOf(t *testing.T, u *Upstream, address string) float64 {
	const picks = 50_000
	n := 0
	for i := range picks {
		var turn Turn
		turn.Begin(u, KeyOf("client-"+strconv.Itoa(i)))
		e, err := turn.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		if e.Address() == address {
			n++
		}
		turn.End()
	}
	return float64(n) / picks
}

var policyNames = map[Policy]string{RoundRobin: "ROUND_ROBIN", LeastRequests: "LEAST_REQUESTS", Random: "RANDOM", ConsistentHash: "CONSISTENT_HASH"}

func TestShareGrowsWhenAnEndpointHasComeUp(t *testing.T) {
	for p, name := range policyNames {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := New(three(p))
				time.Sleep(time.Minute)
				check := func(when string, grown float64) {
					t.Helper()
					got, want := shareOf(t, u, "1"), grown/(2+grown)
					t.Logf("%-25s %.2f%% of the picks, want %.2f%%", when, 100*got, 100*want)
					if math.Abs(got-want) > 0.012 {
						t.Errorf("%s: %.3f of the picks, want %.3f", when, got, want)
					}
				}
				check("at first", 1)
				u.Endpoints()[1].cameUp(time.Now())
				check("an endpoint that has just come up", 0.1)
				time.Sleep(5 * time.Second)
				check("after half the period", 0.55)
				time.Sleep(4 * time.Second)
				check("after nine tenths", 0.91)
				time.Sleep(time.Second)
				check("after the period", 1)
				u.Endpoints()[1].cameUp(time.Now())
				check("an endpoint that has come up again", 0.1)
			})
		})
	}
}

// Keys move to an endpoint as its share grows, and never move back.
func TestKeysMoveOnlyOnceAsAShareGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(three(ConsistentHash))
		u.Endpoints()[1].cameUp(time.Now())
		had := map[int]string{}
		for range 12 {
			for k := range 3000 {
				var turn Turn
				turn.Begin(u, KeyOf(strconv.Itoa(k)))
				e, _ := turn.Next(nil)
				turn.End()
				if before := had[k]; before != "" && before != e.Address() && e.Address() != "1" {
					t.Fatalf("key %d went from %s to %s", k, before, e.Address())
				}
				had[k] = e.Address()
			}
			time.Sleep(time.Second)
		}
	})
}

// If all endpoints came up at once, they share evenly.
func TestEndpointsThatStartTogetherShareEvenly(t *testing.T) {
	for p, name := range policyNames {
		synctest.Test(t, func(t *testing.T) {
			u := New(three(p))
			for _, e := range u.Endpoints() {
				e.cameUp(time.Now())
			}
			if got := shareOf(t, u, "1"); math.Abs(got-1.0/3) > 0.012 {
				t.Errorf("%s: %.3f of the picks", name, got)
			}
		})
	}
}

// An upstream that replaces another starts new endpoints slowly, and continues
// the slow start of existing ones.
func TestNewEndpointsOfALiveUpstreamStartSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := three(Random)
		grown := func(u *Upstream) (all []uint64) {
			for _, e := range u.Endpoints() {
				var now instant
				all = append(all, e.grown(&now)*10/wholeShare)
			}
			return all
		}
		check := func(what string, u *Upstream, want ...uint64) {
			t.Helper()
			for i, g := range grown(u) {
				if g != want[i] {
					t.Errorf("%s: grown to %v tenths, want %v", what, grown(u), want)
					break
				}
			}
		}
		first := o
		first.Endpoints = o.Endpoints[:1]
		a := New(first)
		check("at the start", a, 10)
		time.Sleep(time.Minute)

		o.Replaces = a
		b := New(o)
		check("replaced", b, 10, 0, 0) // a little less than a tenth
		time.Sleep(4 * time.Second)
		check("4s later", b, 10, 4, 4)

		o.Replaces = b
		o.Endpoints[2].Weight = 3
		c := New(o)
		check("replaced again", c, 10, 4, 4)
		if c.options.Replaces != nil {
			t.Error("New keeps a reference to the replaced Upstream")
		}
		time.Sleep(6 * time.Second)
		check("10s later", c, 10, 10, 10)

		o.Replaces = New(Options{Name: "down"})
		check("without a replaced Upstream", New(o), 10, 10, 10)
		o.SlowStart, o.Replaces = 0, a
		check("without a slow start", New(o), 10, 10, 10)
	})
}

// A Turn that waits for room gets an error when no endpoint is left.
func TestAWaitingTurnFailsWhenNoEndpointIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Options{
			Endpoints: []EndpointOptions{{Network: "tcp", Address: "a"}, {Network: "tcp", Address: "b"}},
			Limits:    Limits{Requests: 1, Pending: 2},
		})
		var hold, goes, waits Turn
		hold.Begin(u, Key{})
		if _, err := hold.Next(nil); err != nil {
			t.Fatal(err)
		}
		errs := make(chan error, 2)
		for _, turn := range []*Turn{&goes, &waits} {
			turn.Begin(u, Key{})
			go func() {
				_, err := turn.Next(func() (context.Context, func()) { return t.Context(), func() {} })
				errs <- err
			}()
			synctest.Wait()
		}
		u.group.Store(newGroup(RoundRobin, nil))
		u.changed()
		synctest.Wait()
		for range 2 {
			select {
			case err := <-errs:
				if err != ErrNoEndpoint {
					t.Errorf("%v", err)
				}
			default:
				t.Fatal("the Turn still waits")
			}
		}
		hold.End()
	})
}

// New endpoints admit Turns that wait because all others are full.
func TestNewEndpointsServeWaitingTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Options{
			Endpoints: []EndpointOptions{{Network: "tcp", Address: "a"}},
			Limits:    Limits{RequestsPerEndpoint: 1, Pending: 5},
		})
		const turns = 3 // the first Turn need not wait
		got := make(chan string, turns)
		var all [turns]Turn
		for i := range all {
			all[i].Begin(u, Key{})
			go func() {
				e, err := all[i].Next(func() (context.Context, func()) { return t.Context(), func() {} })
				if err != nil {
					got <- err.Error()
					return
				}
				got <- e.Address()
			}()
			synctest.Wait()
		}
		b, c := u.newEndpoint(EndpointOptions{Network: "tcp", Address: "b"}), u.newEndpoint(EndpointOptions{Network: "tcp", Address: "c"})
		u.group.Store(newGroup(RoundRobin, []*Endpoint{u.Endpoints()[0], b, c}))
		u.changed()
		synctest.Wait()
		if len(got) != turns {
			t.Fatalf("%d of %d were admitted", len(got), turns)
		}
		for i := range all {
			all[i].End()
		}
	})
}
