package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// randomEdit returns a random edit of a small state in which most resources
// refer to others. Some references dangle.
func randomEdit(random *rand.Rand) Edit {
	var e Edit
	pick := func(kind string) string { return fmt.Sprint(kind, random.IntN(6)) }
	for range 1 + random.IntN(4) {
		switch random.IntN(6) {
		case 0:
			e.Puts = append(e.Puts, put(&adminv1.TrustBundle{Name: pick("t"), Source: &adminv1.TrustBundle_Pem{Pem: fmt.Sprint(random.IntN(3))}})...)
		case 1:
			e.Puts = append(e.Puts, put(&adminv1.Certificate{Name: pick("c")})...)
		case 2:
			u := upstream(pick("u"))
			u.Transport = &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{Certificate: pick("c"), TrustBundles: []string{pick("t")}}}
			e.Puts = append(e.Puts, put(u)...)
		case 3:
			l := listener(pick("l"), pick("u"))
			l.Tls = &adminv1.ServerTls{}
			for range random.IntN(5) {
				l.Tls.Certificates = append(l.Tls.Certificates, pick("c"))
			}
			if random.IntN(3) == 0 {
				l.Tls.Policies = []*adminv1.TlsPolicy{{Hosts: []string{"h.test"}, Certificates: []string{pick("c"), pick("c")}}}
			}
			e.Puts = append(e.Puts, put(l)...)
		case 4:
			e.Puts = append(e.Puts, put(&adminv1.Route{Name: pick("r"), Listeners: []string{pick("l")}, Action: &adminv1.Route_Forward{
				Forward: &adminv1.Forward{Upstreams: []*adminv1.WeightedUpstream{{Name: pick("u")}, {Name: pick("u")}}}}})...)
		default:
			k := Kinds()[random.IntN(5)]
			e.Deletes = append(e.Deletes, Delete{Kind: k, Name: pick(map[adminv1.Kind]string{
				kTrustBundle: "t", kCertificate: "c", kUpstream: "u", kListener: "l", adminv1.Kind_KIND_ROUTE: "r"}[k])})
		}
	}
	return e
}

// The result of many edits equals a state restored from the same resources: in
// its lists, its users, and the faults of the next edit.
func TestEditingAStateEqualsRebuildingIt(t *testing.T) {
	accepted := 0
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := new(State)
		for range 300 {
			restored, err := Restore(s.Revision(), s.All())
			if err != nil {
				t.Fatal(err)
			}
			e := randomEdit(random)
			var bad, again invalid.List
			d, same := s.Edit(e, &bad), restored.Edit(e, &again)
			if a, b := fmt.Sprint(bad.Err()), fmt.Sprint(again.Err()); a != b {
				t.Fatalf("seed %d: the faults are %s; of the restored state %s", seed, a, b)
			}
			if !slices.Equal(d.Changes(), same.Changes()) {
				t.Fatalf("seed %d: the changes are %v; of the restored state %v", seed, d.Changes(), same.Changes())
			}
			if bad.Len() > 0 {
				continue
			}
			accepted++
			before := s
			s = d.State()
			checkUsers(t, s)
			checkChanged(t, before, s)
		}
	}
	if accepted < 300 {
		t.Errorf("only %d edits were accepted", accepted)
	}
}

// checkUsers compares the index of users with the references of all resources.
func checkUsers(t *testing.T, s *State) {
	t.Helper()
	want := map[Ref][]Ref{}
	for _, r := range s.All() {
		for _, u := range uses(r) {
			for _, name := range u.names {
				to := Ref{u.kind, name}
				if known := want[to]; len(known) == 0 || known[len(known)-1] != RefOf(r) {
					want[to] = append(known, RefOf(r))
				}
			}
		}
	}
	for _, r := range s.All() {
		ref := RefOf(r)
		if got := slices.Collect(s.Users(ref)); !slices.Equal(got, want[ref]) || s.UserCount(ref) != len(want[ref]) {
			t.Fatalf("%v is used by %v; the index has %d: %v", ref, want[ref], s.UserCount(ref), got)
		}
	}
}

func checkChanged(t *testing.T, before, after *State) {
	t.Helper()
	var want []Ref
	for _, k := range Kinds() {
		names := map[string]bool{}
		for _, r := range slices.Concat(before.List(k), after.List(k)) {
			names[r.GetName()] = true
		}
		for name := range names {
			if before.Get(k, name) != after.Get(k, name) {
				want = append(want, Ref{k, name})
			}
		}
	}
	got := after.Changed(before)
	if len(got) != len(want) {
		t.Fatalf("%v have changed; Changed returns %v", want, got)
	}
	for _, ref := range want {
		if !slices.Contains(got, ref) {
			t.Fatalf("%v has changed; Changed returns %v", ref, got)
		}
	}
}
