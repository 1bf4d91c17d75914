package hpack

import (
	"hash/maphash"
	"strings"
)

const (
	// entryOverhead is what an entry counts in addition to its name and value (section 4.1).
	entryOverhead = 32

	buckets = 32
)

// A table is the dynamic table of an encoder. Entries have consecutive numbers, from 1. An
// entry is found by its hash through a chain of entries with decreasing numbers; a chain
// ends at the first number that was evicted, so nothing is deleted from chains. A peer who
// chooses fields cannot make chains long, because hashes are seeded; without the seed, a
// chain would have at most as many entries as the table.
type table struct {
	max, size uint32 // in the sense of section 4.1

	ring          []entry // the entry with number n is at n modulo its length, a power of two
	last, evicted uint64  // the numbers of the newest entry, and of the newest one evicted
	pairs, names  []uint64
	seed          maphash.Seed
}

// An entry is a field in the table.
type entry struct {
	text string // the name and the value
	name int    // the length of the name
	hash hashes

	// The entries before this one in the chains.
	pair, sameName uint64
}

// hashes are the hashes of a name, and of a name with a value.
type hashes struct{ name, pair uint32 }

func (t *table) hash(name, value string) hashes {
	n := t.hashName(name)
	return hashes{n, n*31 + uint32(maphash.String(t.seed, value))}
}

func (t *table) hashName(name string) uint32 {
	if t.ring == nil {
		t.seed, t.ring = maphash.MakeSeed(), make([]entry, 8)
		t.pairs, t.names = make([]uint64, buckets), make([]uint64, buckets)
	}
	return uint32(maphash.String(t.seed, name))
}

func (t *table) at(n uint64) *entry { return &t.ring[n&uint64(len(t.ring)-1)] }

// index returns the index of an entry in a block (section 2.3.3).
func (t *table) index(n uint64) uint64 { return uint64(len(staticValues)) + t.last - n }

// find returns the index of a field; 0: the table does not have it.
func (t *table) find(name, value string, hash hashes) uint64 {
	for n := t.pairs[hash.pair%buckets]; n > t.evicted; {
		e := t.at(n)
		if e.hash == hash && e.text[:e.name] == name && e.text[e.name:] == value {
			return t.index(n)
		}
		n = e.pair
	}
	return 0
}

// findName returns the index of a field with a name; 0: the table has no such field.
func (t *table) findName(name string, hash uint32) uint64 {
	for n := t.names[hash%buckets]; n > t.evicted; {
		e := t.at(n)
		if e.hash.name == hash && e.text[:e.name] == name {
			return t.index(n)
		}
		n = e.sameName
	}
	return 0
}

// fits reports whether the table can hold a field.
func (t *table) fits(name, value string) bool {
	return uint64(len(name))+uint64(len(value))+entryOverhead <= uint64(t.max)
}

// add adds a field that fits, and evicts the oldest entries to make room for it (section
// 4.4).
func (t *table) add(name, value string, hash hashes) {
	size := uint32(len(name)+len(value)) + entryOverhead
	t.evict(t.max - size)
	if live := t.last - t.evicted; live == uint64(len(t.ring)) {
		t.grow()
	}
	t.size += size
	t.last++
	pair, same := &t.pairs[hash.pair%buckets], &t.names[hash.name%buckets]
	text := name + value // a copy, so that the table does not keep the head that the field is from
	if value == "" {
		text = strings.Clone(name)
	}
	*t.at(t.last) = entry{text: text, name: len(name), hash: hash, pair: *pair, sameName: *same}
	*pair, *same = t.last, t.last
}

// grow doubles the ring.
func (t *table) grow() {
	old := *t
	t.ring = make([]entry, 2*len(t.ring))
	for n := t.evicted + 1; n <= t.last; n++ {
		*t.at(n) = *old.at(n)
	}
}

// evict removes the oldest entries until the others take at most max bytes.
func (t *table) evict(max uint32) {
	for t.size > max {
		t.evicted++
		e := t.at(t.evicted)
		t.size -= uint32(len(e.text)) + entryOverhead
		e.text = ""
	}
}

// resize changes the size of the table.
func (t *table) resize(max uint32) {
	t.max = max
	t.evict(max)
}
