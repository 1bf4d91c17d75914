package route

import (
	"fmt"
	"maps"
	"slices"
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

// A bucketEdit is the copy of a bucket. Its maps are copied before they change.
type bucketEdit[T any] struct {
	*bucket[T]
	exactCopied, prefixesCopied bool
	added                       map[Path]bool // the paths of added entries
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
	copied := map[*map[string]*bucket[T]]bool{}
	for pattern, b := range e.buckets {
		if err := b.checkConflicts(pattern); err != nil {
			return nil, err
		}
		m, key := e.next.find(pattern)
		if !copied[m] {
			*m, copied[m] = maps.Clone(*m), true
		}
		if b.isEmpty() {
			delete(*m, key)
		} else {
			(*m)[key] = b.bucket
		}
	}
	if e.headers {
		e.next.headerNames = slices.Sorted(maps.Keys(e.next.headers))
	}
	return e.next, nil
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
	m, key := e.next.find(pattern)
	b := &bucketEdit[T]{added: map[Path]bool{}}
	if before := (*m)[key]; before == nil {
		b.bucket, b.exactCopied, b.prefixesCopied = newBucket[T](), true, true
	} else {
		copied := *before
		b.bucket = &copied
	}
	e.buckets[pattern] = b
	return b
}

// set replaces the list of p, in a copy of its map.
func (b *bucketEdit[T]) set(p Path, list []*entry[T]) {
	switch {
	case p.Kind == PathExact && !b.exactCopied:
		b.exact, b.exactCopied = maps.Clone(b.exact), true
	case p.Kind == PathPrefix && !b.prefixesCopied:
		b.prefixes, b.prefixesCopied = maps.Clone(b.prefixes), true
	}
	b.bucket.set(p, list)
	if len(list) > 0 {
		return
	}
	switch p.Kind {
	case PathExact:
		delete(b.exact, p.Value)
	case PathPrefix:
		delete(b.prefixes, p.Value)
		if len(p.Value) < b.longest {
			return
		}
		b.longest = 0
		for prefix := range b.prefixes {
			b.longest = max(b.longest, len(prefix))
		}
	}
}

func (b *bucketEdit[T]) isEmpty() bool {
	return len(b.exact)+len(b.prefixes)+len(b.regexes)+len(b.none) == 0
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
