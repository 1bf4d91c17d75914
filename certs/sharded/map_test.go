package sharded

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

// After any edits a Map has the entries of an ordinary map, and the Maps before are
// unchanged.
func TestAMapHoldsWhatWasSet(t *testing.T) {
	type version struct {
		m    Map[int]
		want map[string]int
	}
	random := rand.New(rand.NewPCG(1, 2))
	versions := []version{{}}
	for range 200 {
		from := versions[random.IntN(len(versions))]
		want := maps.Clone(from.want)
		if want == nil {
			want = map[string]int{}
		}
		e := from.m.Edit()
		for range random.IntN(60) {
			key := fmt.Sprint("k", random.IntN(500))
			if random.IntN(3) == 0 {
				e.Delete(key)
				delete(want, key)
			} else {
				n := 1 + random.IntN(1000)
				e.Set(key, n)
				want[key] = n
			}
			if got := e.Get(key); got != want[key] {
				t.Fatalf("%s is %d in the editor, want %d", key, got, want[key])
			}
		}
		if e.Len() != len(want) {
			t.Fatalf("%d entries in the editor, want %d", e.Len(), len(want))
		}
		versions = append(versions, version{e.Map(), want})
	}
	for i, v := range versions {
		got := map[string]int{}
		for key, n := range v.m.All() {
			got[key] = n
		}
		if !maps.Equal(got, v.want) || v.m.Len() != len(v.want) {
			t.Fatalf("version %d has %d entries (Len %d), want %d", i, len(got), v.m.Len(), len(v.want))
		}
		for i := range 500 {
			if key := fmt.Sprint("k", i); v.m.Get(key) != v.want[key] {
				t.Fatalf("%s is %d, want %d", key, v.m.Get(key), v.want[key])
			}
		}
	}
}

// An edit of one entry copies one shard, independent of the size of the map.
func TestAnEditCopiesOneShard(t *testing.T) {
	const n = 10_000
	e := new(Map[int]).Edit()
	for i := range n {
		e.Set(fmt.Sprint(i), i)
	}
	m := e.Map()
	for _, key := range []string{"17", "4711", "a new key"} {
		for _, edit := range []func(*Editor[int]){func(e *Editor[int]) { e.Set(key, 1) }, func(e *Editor[int]) { e.Delete(key) }} {
			e := m.Edit()
			edit(e)
			if e.Copied() > 4*shardSize {
				t.Errorf("%q: an edit copied %d of %d entries", key, e.Copied(), n)
			}
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := new(Map[int]).Edit()
			for i := range n {
				e.Set(fmt.Sprintf("host-%d.example.test", i), i)
			}
			m := e.Map()
			for b.Loop() {
				if m.Get("host-7.example.test") != 7 {
					b.Fatal("not found")
				}
			}
		})
	}
}
