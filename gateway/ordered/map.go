// Package ordered provides an immutable map whose keys are in order.
//
// A change creates a new Map, which shares all unchanged parts with the old
// one. So the cost depends on the size of the change, not of the map, and each
// write can replace a snapshot of ten thousand resources.
package ordered

import (
	"iter"
	"maps"
	"slices"
	"sort"
	"strings"
)

// chunkSize is the maximum number of entries in a chunk. A change copies one chunk
// and the list of chunks, so the best size is the square root of the usual number
// of entries.
const chunkSize = 128

// A Map is an immutable map from names to values that are not zero. Its zero
// value is empty. It is safe for concurrent use.
type Map[V comparable] struct {
	chunks []*chunk[V] // no chunk is empty
	len    int
}

// A chunk holds consecutive entries in order.
type chunk[V comparable] struct {
	keys   []string
	values []V
}

// Collect returns a Map of the entries of m. Zero values are left out.
func Collect[V comparable](m map[string]V) Map[V] { return Map[V]{}.With(m) }

// Len returns the number of entries.
func (m Map[V]) Len() int { return m.len }

// Get returns the value of the key, or zero if the map has no such key.
func (m Map[V]) Get(key string) V {
	var zero V
	if len(m.chunks) == 0 {
		return zero
	}
	c := m.chunks[m.chunkOf(key)]
	if i, ok := slices.BinarySearch(c.keys, key); ok {
		return c.values[i]
	}
	return zero
}

// chunkOf returns the index of the chunk that holds the key, or would hold it. The
// map must not be empty.
func (m Map[V]) chunkOf(key string) int {
	return max(0, sort.Search(len(m.chunks), func(i int) bool { return m.chunks[i].keys[0] > key })-1)
}

// All yields the entries in the order of their keys.
func (m Map[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, c := range m.chunks {
			for i, key := range c.keys {
				if !yield(key, c.values[i]) {
					return
				}
			}
		}
	}
}

// Values returns the values in the order of their keys. The caller owns the slice.
func (m Map[V]) Values() []V {
	out := make([]V, 0, m.len)
	for _, c := range m.chunks {
		out = append(out, c.values...)
	}
	return out
}

// With returns a map with the changed entries. A zero value removes its key.
func (m Map[V]) With(changes map[string]V) Map[V] {
	if len(changes) == 0 {
		return m
	}
	keys := slices.Sorted(maps.Keys(changes))
	out := Map[V]{chunks: make([]*chunk[V], 0, len(m.chunks)+1+len(keys)/chunkSize)}
	if len(m.chunks) == 0 {
		out.add(merge(&chunk[V]{}, keys, changes))
		return out
	}
	for i, c := range m.chunks {
		n := len(keys) // how many of the keys belong to this chunk
		if i+1 < len(m.chunks) {
			n, _ = slices.BinarySearch(keys, m.chunks[i+1].keys[0])
		}
		if n == 0 {
			out.chunks, out.len = append(out.chunks, c), out.len+len(c.keys)
			continue
		}
		out.add(merge(c, keys[:n], changes))
		keys = keys[n:]
	}
	return out
}

// add appends the entries of c, in chunks of a good size.
func (m *Map[V]) add(c *chunk[V]) {
	m.len += len(c.keys)
	if last := len(m.chunks) - 1; last >= 0 && len(c.keys) > 0 && len(c.keys)+len(m.chunks[last].keys) <= chunkSize/2 {
		// Without this, deletes would leave many small chunks.
		before := m.chunks[last]
		m.chunks[last] = &chunk[V]{slices.Concat(before.keys, c.keys), slices.Concat(before.values, c.values)}
		return
	}
	pieces := (len(c.keys) + chunkSize - 1) / chunkSize
	for i := range pieces {
		from, to := i*len(c.keys)/pieces, (i+1)*len(c.keys)/pieces
		m.chunks = append(m.chunks, &chunk[V]{slices.Clip(c.keys[from:to]), slices.Clip(c.values[from:to])})
	}
}

// merge returns a copy of c with the changes of the sorted keys.
func merge[V comparable](c *chunk[V], keys []string, changes map[string]V) *chunk[V] {
	var zero V
	out := &chunk[V]{make([]string, 0, len(c.keys)+len(keys)), make([]V, 0, len(c.keys)+len(keys))}
	take := func(key string, v V) { out.keys, out.values = append(out.keys, key), append(out.values, v) }
	at := 0
	for i, key := range c.keys {
		for ; at < len(keys) && keys[at] < key; at++ {
			if v := changes[keys[at]]; v != zero {
				take(keys[at], v)
			}
		}
		if at == len(keys) || keys[at] != key {
			take(key, c.values[i])
			continue
		}
		if v := changes[key]; v != zero {
			take(key, v)
		}
		at++
	}
	for ; at < len(keys); at++ {
		if v := changes[keys[at]]; v != zero {
			take(keys[at], v)
		}
	}
	return out
}

// Differ yields every key whose values in the two maps differ, in order, with both
// values. Zero stands for no entry. It skips parts that the maps share.
func Differ[V comparable](before, after Map[V]) iter.Seq2[string, [2]V] {
	return func(yield func(string, [2]V) bool) {
		var zero V
		a, b := cursor[V]{chunks: before.chunks}, cursor[V]{chunks: after.chunks}
		for {
			a.skipShared(&b)
			order := 0
			switch {
			case a.done() && b.done():
				return
			case a.done():
				order = 1
			case b.done():
				order = -1
			default:
				order = strings.Compare(a.key(), b.key())
			}
			switch {
			case order < 0:
				if !yield(a.key(), [2]V{a.value(), zero}) {
					return
				}
				a.next()
			case order > 0:
				if !yield(b.key(), [2]V{zero, b.value()}) {
					return
				}
				b.next()
			default:
				if a.value() != b.value() && !yield(a.key(), [2]V{a.value(), b.value()}) {
					return
				}
				a.next()
				b.next()
			}
		}
	}
}

// A cursor is a position in a map.
type cursor[V comparable] struct {
	chunks []*chunk[V] // the chunk of the position, and all later ones
	at     int         // index in the first chunk
}

func (c *cursor[V]) done() bool { return len(c.chunks) == 0 }

func (c *cursor[V]) key() string { return c.chunks[0].keys[c.at] }

func (c *cursor[V]) value() V { return c.chunks[0].values[c.at] }

func (c *cursor[V]) next() {
	if c.at++; c.at == len(c.chunks[0].keys) {
		c.chunks, c.at = c.chunks[1:], 0
	}
}

// skipShared moves both cursors past chunks that are the same.
func (c *cursor[V]) skipShared(o *cursor[V]) {
	for !c.done() && !o.done() && c.at == o.at && c.chunks[0] == o.chunks[0] {
		c.chunks, c.at = c.chunks[1:], 0
		o.chunks, o.at = o.chunks[1:], 0
	}
}
