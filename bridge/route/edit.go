package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Edit returns the table without the removed rules and with the added ones. It shares
// all other rules with t, so it costs less than New. The removed rules must be rules
// of t, each with a name of its own. An error says that the result would not be
// valid; New then finds every fault.
func (t *Table[T]) Edit(remove, add []Rule[T]) (*Table[T], error) {
	if t == nil {
		return New(add)
	}
	e := newEditor(t)
	for i := range remove {
		if err := e.remove(&remove[i]); err != nil {
			return nil, err
		}
	}
	for i := range add {
		if err := e.add(&add[i]); err != nil {
			return nil, err
		}
	}
	return e.finish()
}

// An editor makes one table from another, and copies what it changes.
type editor[T any] struct {
	next    *Table[T]
	buckets map[string]*bucketEdit[T] // by host pattern
	headers bool                      // the counts of headers were copied
}

// A bucketEdit is a bucket that was copied, and which of its parts were.
type bucketEdit[T any] struct {
	*bucket[T]
	exact, prefixes bool // the maps were copied
	added           map[Path]bool
}

func newEditor[T any](t *Table[T]) *editor[T] {
	next := *t
	return &editor[T]{next: &next, buckets: map[string]*bucketEdit[T]{}}
}

func (e *editor[T]) remove(r *Rule[T]) error {
	_, hosts, bad := compile(&Rule[T]{Name: r.Name, Hosts: r.Hosts})
	if len(bad) > 0 {
		return bad
	}
	for i, host := range hosts {
		b := e.bucket(host)
		list := b.list(r.Path)
		own := func(have *entry[T]) bool { return have.name == r.Name }
		at := slices.IndexFunc(list, own)
		if at < 0 {
			return fmt.Errorf("rule %s is not in the table", r.Name)
		}
		if re := list[at].regex; re != nil && i == 0 {
			e.next.programs -= re.size
		}
		b.set(r.Path, slices.DeleteFunc(slices.Clone(list), own))
	}
	e.count(r, -1)
	return nil
}

func (e *editor[T]) add(r *Rule[T]) error {
	fresh, hosts, bad := compile(r)
	if len(bad) > 0 {
		return bad
	}
	if re := fresh[0].regex; re != nil {
		if e.next.programs += re.size; e.next.programs > maxRegexPrograms {
			return tooLarge(r.Name)
		}
	}
	for _, host := range hosts {
		b := e.bucket(host)
		for _, one := range fresh {
			list := b.list(r.Path)
			at, _ := slices.BinarySearchFunc(list, one, (*entry[T]).compare)
			b.set(r.Path, slices.Concat(list[:at], []*entry[T]{one}, list[at:]))
		}
		b.added[r.Path] = true
	}
	e.count(r, 1)
	return nil
}

// finish checks the edited parts and returns the table.
func (e *editor[T]) finish() (*Table[T], error) {
	exact, wildcard := false, false // the maps were copied
	for pattern, b := range e.buckets {
		if err := b.checkConflicts(pattern); err != nil {
			return nil, err
		}
		key, wild := strings.CutPrefix(pattern, "*.")
		switch {
		case pattern == "":
			e.next.any = b.unlessEmpty()
		case wild:
			if !wildcard {
				e.next.wildcard, wildcard = maps.Clone(e.next.wildcard), true
			}
			setOrDelete(e.next.wildcard, key, b.unlessEmpty())
		default:
			if !exact {
				e.next.exact, exact = maps.Clone(e.next.exact), true
			}
			setOrDelete(e.next.exact, pattern, b.unlessEmpty())
		}
	}
	if e.headers {
		e.next.headerNames = slices.Sorted(maps.Keys(e.next.headers))
	}
	return e.next, nil
}

func setOrDelete[T any](m map[string]*bucket[T], key string, b *bucket[T]) {
	if b == nil {
		delete(m, key)
		return
	}
	m[key] = b
}

// count adds n to the counts of r's header fields.
func (e *editor[T]) count(r *Rule[T], n int) {
	if len(r.Headers) == 0 {
		return
	}
	if !e.headers {
		e.next.headers, e.headers = maps.Clone(e.next.headers), true
	}
	countHeaders(e.next.headers, r, n)
}

// bucket returns the copy of a bucket, which is made when it is first needed.
func (e *editor[T]) bucket(pattern string) *bucketEdit[T] {
	if b := e.buckets[pattern]; b != nil {
		return b
	}
	var before *bucket[T]
	key, wild := strings.CutPrefix(pattern, "*.")
	switch {
	case pattern == "":
		before = e.next.any
	case wild:
		before = e.next.wildcard[key]
	default:
		before = e.next.exact[pattern]
	}
	b := &bucketEdit[T]{added: map[Path]bool{}}
	if before == nil {
		b.bucket, b.exact, b.prefixes = newBucket[T](), true, true
	} else {
		copied := *before
		b.bucket = &copied
	}
	e.buckets[pattern] = b
	return b
}

// list returns the entries that p puts beside each other, sorted.
func (b *bucket[T]) list(p Path) []*entry[T] {
	switch p.Kind {
	case PathExact:
		return b.exact[p.Value]
	case PathPrefix:
		return b.prefixes[p.Value]
	case PathRegex:
		return b.regexes
	}
	return b.none
}

// set replaces the entries of p.
func (b *bucketEdit[T]) set(p Path, list []*entry[T]) {
	switch p.Kind {
	case PathExact:
		if !b.exact {
			b.bucket.exact, b.exact = maps.Clone(b.bucket.exact), true
		}
		b.bucket.exact[p.Value] = list
		if len(list) == 0 {
			delete(b.bucket.exact, p.Value)
		}
	case PathPrefix:
		if !b.prefixes {
			b.bucket.prefixes, b.prefixes = maps.Clone(b.bucket.prefixes), true
		}
		b.bucket.prefixes[p.Value] = list
		b.longest = max(b.longest, len(p.Value))
		if len(list) > 0 {
			return
		}
		delete(b.bucket.prefixes, p.Value)
		if len(p.Value) == b.longest {
			b.longest = 0
			for prefix := range b.bucket.prefixes {
				b.longest = max(b.longest, len(prefix))
			}
		}
	case PathRegex:
		b.regexes = list
	default:
		b.none = list
	}
}

// unlessEmpty returns the bucket, or nil if it has no entries.
func (b *bucketEdit[T]) unlessEmpty() *bucket[T] {
	if len(b.bucket.exact)+len(b.bucket.prefixes)+len(b.regexes)+len(b.none) == 0 {
		return nil
	}
	return b.bucket
}

// checkConflicts returns an error if an added entry is ambiguous with another entry of
// its path.
func (b *bucketEdit[T]) checkConflicts(pattern string) error {
	for p := range b.added {
		list := b.list(p)
		if len(list) < 2 {
			continue
		}
		taken := newConflicts()
		var errs Errors
		for i, e := range list {
			if e.path == p {
				errs = claim(&taken, errs, i, pattern, e, func(j int) string { return list[j].name })
			}
		}
		if len(errs) > 0 {
			return errs
		}
	}
	return nil
}
