package ordered

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// After random changes, a Map has the same entries as a plain map, and shares
// every unchanged chunk.
func TestAMapHoldsThePairsOfAPlainMapInOrder(t *testing.T) {
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 0))
		plain, m := map[string]int{}, Map[int]{}
		for range 100 {
			changes := map[string]int{}
			for range 1 + random.IntN(1+random.IntN(500)) {
				changes[fmt.Sprintf("k%04d", random.IntN(2000))] = random.IntN(3) // 0 removes
			}
			before, beforePlain := m, maps.Clone(plain)
			for k, v := range changes {
				if plain[k] = v; v == 0 {
					delete(plain, k)
				}
			}
			m = m.With(changes)
			check(t, m, plain)
			check(t, before, beforePlain) // the old map must not change
			checkDiffer(t, before, m, beforePlain, plain)
		}
		if m.Len() > 10*chunkSize && len(m.chunks) > 8*m.Len()/chunkSize {
			t.Errorf("seed %d: %d entries are in %d chunks", seed, m.Len(), len(m.chunks))
		}
	}
}

func check(t *testing.T, m Map[int], plain map[string]int) {
	t.Helper()
	if m.Len() != len(plain) || !maps.Equal(maps.Collect(m.All()), plain) {
		t.Fatalf("the map has %d entries, and other ones than the plain map with %d", m.Len(), len(plain))
	}
	var keys []string
	for k := range m.All() {
		keys = append(keys, k)
		if m.Get(k) != plain[k] {
			t.Fatalf("Get(%s) is %d", k, m.Get(k))
		}
	}
	if !slices.IsSorted(keys) {
		t.Fatal("the keys are not in order")
	}
	if m.Get("j") != 0 || m.Get("k0000x") != 0 || m.Get("l") != 0 {
		t.Fatal("a key that is not in the map has a value")
	}
	values := m.Values()
	for i, k := range keys {
		if values[i] != plain[k] {
			t.Fatalf("value %d is not that of %s", i, k)
		}
	}
	for _, c := range m.chunks {
		if len(c.keys) == 0 || len(c.keys) > chunkSize || len(c.keys) != len(c.values) {
			t.Fatalf("a chunk has %d keys and %d values", len(c.keys), len(c.values))
		}
	}
}

func checkDiffer(t *testing.T, a, b Map[int], plainA, plainB map[string]int) {
	t.Helper()
	want := map[string][2]int{}
	for _, m := range []map[string]int{plainA, plainB} {
		for k := range m {
			if plainA[k] != plainB[k] {
				want[k] = [2]int{plainA[k], plainB[k]}
			}
		}
	}
	if got := maps.Collect(Differ(a, b)); !maps.Equal(got, want) {
		t.Fatalf("the maps differ in %v; Differ yields %v", want, got)
	}
}

func TestAChangeSharesTheOtherChunks(t *testing.T) {
	all := map[string]int{}
	for i := range 10_000 {
		all[fmt.Sprintf("k%05d", i)] = 1
	}
	m := Collect(all)
	next := m.With(map[string]int{"k05000": 2})
	fresh := 0
	for i := range next.chunks {
		if next.chunks[i] != m.chunks[i] {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d of %d chunks were copied", fresh, len(m.chunks))
	}
	for range Differ(m, m) {
		t.Error("a map differs from itself")
	}
}

func BenchmarkWith(b *testing.B) {
	all := map[string]int{}
	for i := range 10_000 {
		all[fmt.Sprintf("k%05d", i)] = 1
	}
	m := Collect(all)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m = m.With(map[string]int{fmt.Sprintf("k%05d", i*7919%10_000): 2 + i})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all, keys := map[string]int{}, []string(nil)
			for i := range n {
				keys = append(keys, fmt.Sprintf("k%05d", i))
				all[keys[i]] = 1
			}
			m := Collect(all)
			for i := 0; b.Loop(); i++ {
				m.Get(keys[i*7919%n])
			}
		})
	}
}
