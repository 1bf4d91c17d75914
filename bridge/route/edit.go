package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/sharded"
)

// Edit returns the table without the removed rules and with the added ones. It shares
// all other rules with t, so it costs less than New. The removed rules must be rules
// of t with distinct names. An error says that the result would not be valid; New
// then finds every fault.
func (t *Table[T]) Edit(remove, add []Rule[T]) (*Table[T], error) {
	if t == nil {
		return New(add)
	}
	e := newEditor(t)
	if err := e.edit(remove, add); err != nil {
		return nil, err
	}
	return e.next, nil
}

// An editor creates a table from another one, and copies only the changed
// parts.
type editor[T any] struct {
	next            *Table[T]
	exact, wildcard *sharded.Editor[*bucket[T]]
	buckets         map[string]*bucketEdit[T] // by host pattern
	headers         bool                      // the counts of headers were copied
}

// A bucketEdit is the copy of a bucket.
type bucketEdit[T any] struct {
	bucket[T]
	exactEdit, prefixesEdit *sharded.Editor[[]*entry[T]] // nil: unchanged
	longestGone             bool                         // a removed prefix may have been the longest
	regexesEdited           bool                         // the index must be rebuilt
	added                   []Path                       // the paths of added entries
}

func newEditor[T any](t *Table[T]) *editor[T] {
	next := *t
	return &editor[T]{next: &next, exact: t.exact.Edit(), wildcard: t.wildcard.Edit(), buckets: map[string]*bucketEdit[T]{}}
}

func (e *editor[T]) edit(remove, add []Rule[T]) error {
	for i := range remove {
		if err := e.remove(&remove[i]); err != nil {
			return err
		}
	}
	for i := range add {
		if err := e.add(&add[i]); err != nil {
			return err
		}
	}
	for pattern, b := range e.buckets {
		if err := b.checkConflicts(pattern); err != nil {
			return err
		}
	}
	e.finish()
	if e.headers {
		e.next.headerNames = slices.Sorted(maps.Keys(e.next.headers))
	}
	return nil
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
		if !slices.Contains(b.added, r.Path) {
			b.added = append(b.added, r.Path)
		}
	}
	e.count(r, 1)
	return nil
}

// finish puts the edited buckets into the table.
func (e *editor[T]) finish() {
	for pattern, b := range e.buckets {
		m, key := e.find(pattern)
		if b.finish(); b.isEmpty() {
			m.Delete(key)
		} else {
			edited := b.bucket // a copy without the editors
			m.Set(key, &edited)
		}
	}
	e.next.exact, e.next.wildcard = e.exact.Map(), e.wildcard.Map()
}

// copied returns how many unedited entries were copied, for tests.
func (e *editor[T]) copied() int {
	n := e.exact.Copied() + e.wildcard.Copied()
	for _, b := range e.buckets {
		for _, m := range []*sharded.Editor[[]*entry[T]]{b.exactEdit, b.prefixesEdit} {
			if m != nil {
				n += m.Copied()
			}
		}
	}
	return n
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

// find returns the map that holds the bucket of a host pattern, and its key there.
func (e *editor[T]) find(pattern string) (m *sharded.Editor[*bucket[T]], key string) {
	if parent, ok := strings.CutPrefix(pattern, "*."); ok {
		return e.wildcard, parent
	}
	return e.exact, pattern
}

// bucket returns the copy of a bucket. The first call creates the copy.
func (e *editor[T]) bucket(pattern string) *bucketEdit[T] {
	if b := e.buckets[pattern]; b != nil {
		return b
	}
	m, key := e.find(pattern)
	b := new(bucketEdit[T])
	if before := m.Get(key); before != nil {
		b.bucket = *before
	}
	e.buckets[pattern] = b
	return b
}

// edits returns the map of p, and a pointer to the editor of this map. It returns nil if
// p is in no map.
func (b *bucketEdit[T]) edits(p Path) (edit **sharded.Editor[[]*entry[T]], of *sharded.Map[[]*entry[T]]) {
	switch p.Kind {
	case PathExact:
		return &b.exactEdit, &b.exact
	case PathPrefix:
		return &b.prefixesEdit, &b.prefixes
	}
	return nil, nil
}

// list returns the entries that are matched together with the entries of p: the entries
// of an exact path or prefix, of every regular expression, or of no path.
func (b *bucketEdit[T]) list(p Path) []*entry[T] {
	if edit, of := b.edits(p); edit != nil {
		if *edit != nil {
			return (*edit).Get(p.Value)
		}
		return of.Get(p.Value)
	}
	if p.Kind == PathRegex {
		return b.regexes
	}
	return b.none
}

// set replaces the list of p.
func (b *bucketEdit[T]) set(p Path, list []*entry[T]) {
	edit, of := b.edits(p)
	switch {
	case edit == nil && p.Kind == PathRegex:
		b.regexes, b.regexesEdited = list, true
	case edit == nil:
		b.none = list
	default:
		if *edit == nil {
			*edit = of.Edit()
		}
		if len(list) > 0 {
			(*edit).Set(p.Value, list)
		} else {
			(*edit).Delete(p.Value)
		}
		if p.Kind == PathPrefix && len(list) > 0 {
			b.longest = max(b.longest, len(p.Value))
		} else if p.Kind == PathPrefix && len(p.Value) == b.longest {
			b.longestGone = true
		}
	}
}

// finish puts the edited maps into the bucket.
func (b *bucketEdit[T]) finish() {
	if b.exactEdit != nil {
		b.exact = b.exactEdit.Map()
	}
	if b.prefixesEdit != nil {
		b.prefixes = b.prefixesEdit.Map()
	}
	if b.regexesEdited {
		b.index = newRegexIndex(len(b.regexes), func(i int) *regex { return b.regexes[i].regex })
	}
	if !b.longestGone {
		return
	}
	before := b.longest
	b.longest = 0
	for prefix := range b.prefixes.All() {
		if b.longest = max(b.longest, len(prefix)); b.longest == before {
			break
		}
	}
}

// sort orders the entries of a new bucket.
func (b *bucketEdit[T]) sort() {
	for _, m := range []*sharded.Editor[[]*entry[T]]{b.exactEdit, b.prefixesEdit} {
		if m == nil {
			continue
		}
		for _, es := range m.All() {
			slices.SortFunc(es, (*entry[T]).compare)
		}
	}
	slices.SortFunc(b.regexes, (*entry[T]).compare)
	slices.SortFunc(b.none, (*entry[T]).compare)
}

func (b *bucketEdit[T]) isEmpty() bool {
	return b.exact.Len()+b.prefixes.Len()+len(b.regexes)+len(b.none) == 0
}

// checkConflicts returns an error if an added entry is ambiguous with another entry of
// its path.
func (b *bucketEdit[T]) checkConflicts(pattern string) error {
	for _, p := range b.added {
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
