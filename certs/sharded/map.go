// Package sharded provides an immutable map whose lookups cost one hash.
//
// An edit makes a new Map, which shares all but the changed shards with the old
// one. So each write can replace a table of ten thousand host names while
// traffic looks up names in it.
package sharded

import (
	"hash/maphash"
	"iter"
	"maps"
)

// shardSize is the average number of entries in a shard at which the number of
// shards is doubled. An edit copies the list of shards and the shards that
// change.
const shardSize = 64

// A Map is an immutable map from strings to values. Its zero value is empty. It is
// safe for concurrent use.
type Map[V any] struct {
	shards []map[string]V // the number of shards is a power of two
	seed   maphash.Seed   // set if there is more than one shard
	len    int
}

// Len returns the number of entries.
func (m *Map[V]) Len() int { return m.len }

// Get returns the value of the key, or zero if the map has no such key.
func (m *Map[V]) Get(key string) V {
	if len(m.shards) == 0 {
		var zero V
		return zero
	}
	return m.shards[m.index(key)][key]
}

// index returns the index of the key's shard. The map must have one.
func (m *Map[V]) index(key string) int {
	if len(m.shards) == 1 {
		return 0
	}
	return int(maphash.String(m.seed, key) & uint64(len(m.shards)-1))
}

// All yields the entries in no particular order.
func (m *Map[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, shard := range m.shards {
			for key, v := range shard {
				if !yield(key, v) {
					return
				}
			}
		}
	}
}

// Edit returns an editor that begins with the entries of m.
func (m *Map[V]) Edit() *Editor[V] { return &Editor[V]{next: *m} }

// An Editor makes one Map from another. It must not be used after Map.
type Editor[V any] struct {
	next   Map[V]
	owned  map[int]bool // the shards that are copies; nil: next.shards is not a copy
	all    bool         // every shard is a copy
	copied int          // the number of copied entries
}

// Len returns the number of entries so far.
func (e *Editor[V]) Len() int { return e.next.len }

// Get returns the value of the key so far, or zero if there is no such key.
func (e *Editor[V]) Get(key string) V { return e.next.Get(key) }

// All yields the entries so far, in no particular order.
func (e *Editor[V]) All() iter.Seq2[string, V] { return e.next.All() }

// Copied returns how many entries the editor has copied so far. Tests use it to check
// that an edit does not copy the whole map.
func (e *Editor[V]) Copied() int { return e.copied }

// Set sets the value of the key.
func (e *Editor[V]) Set(key string, v V) {
	if e.next.len >= shardSize*len(e.next.shards) {
		e.grow()
	}
	shard := e.shard(key)
	before := len(shard)
	shard[key] = v
	e.next.len += len(shard) - before
}

// Delete removes the key, if it exists.
func (e *Editor[V]) Delete(key string) {
	if e.next.len == 0 {
		return
	}
	shard := e.shard(key)
	before := len(shard)
	delete(shard, key)
	e.next.len += len(shard) - before
}

// Map returns the edited map.
func (e *Editor[V]) Map() Map[V] { return e.next }

// shard returns the copy of the key's shard.
func (e *Editor[V]) shard(key string) map[string]V {
	i := e.next.index(key)
	if e.all || e.owned[i] {
		return e.next.shards[i]
	}
	if e.owned == nil {
		e.owned, e.next.shards = map[int]bool{}, append([]map[string]V(nil), e.next.shards...)
	}
	e.owned[i] = true
	e.copied += len(e.next.shards[i])
	if e.next.shards[i] = maps.Clone(e.next.shards[i]); e.next.shards[i] == nil {
		e.next.shards[i] = map[string]V{}
	}
	return e.next.shards[i]
}

// grow doubles the number of shards. It runs each time the number of entries has
// doubled.
func (e *Editor[V]) grow() {
	before := e.next
	n := max(1, 2*len(before.shards))
	e.next.shards, e.all = make([]map[string]V, n), true
	if n == 2 {
		e.next.seed = maphash.MakeSeed()
	}
	for i := range e.next.shards {
		e.next.shards[i] = make(map[string]V, before.len/n)
	}
	for key, v := range before.All() {
		e.next.shards[e.next.index(key)][key] = v
	}
	e.copied += before.len
}
