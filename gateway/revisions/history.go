package revisions

import (
	"maps"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Store holds the records of the latest revisions. Its methods may be called
// concurrently, even while a record is added.
type Store interface {
	// Revision returns a revision, or nil if its record is not stored.
	Revision(n int64) (*adminv1.Revision, error)

	// EachRevision calls yield with the revisions up to a number, latest first, until
	// yield returns false.
	EachRevision(last int64, yield func(*adminv1.Revision) bool) error

	// EachPrior calls yield with the priors of the revisions after a number and up to
	// another, oldest revision first. It returns false if one of their records is no
	// longer stored.
	EachPrior(after, last int64, yield func(Prior)) (complete bool, err error)

	// Oldest returns the number of the oldest revision whose record is stored, or 0 if
	// there is no record.
	Oldest() (int64, error)
}

// A History answers questions about earlier revisions. Its methods may be called
// concurrently.
type History struct{ store Store }

// NewHistory returns the history that is stored in s.
func NewHistory(s Store) *History { return &History{s} }

// Revision returns a revision with all its changes.
func (h *History) Revision(n int64) (*adminv1.Revision, error) {
	r, err := h.store.Revision(n)
	switch {
	case err != nil:
		return nil, errStore(err)
	case r == nil:
		return nil, h.notStored("revision", n)
	}
	return r, nil
}

// Each calls yield with the revisions up to a number, latest first, until yield returns
// false.
func (h *History) Each(last int64, yield func(*adminv1.Revision) bool) error {
	if err := h.store.EachRevision(last, yield); err != nil {
		return errStore(err)
	}
	return nil
}

// A Difference is a resource that differs between two revisions. One side is nil if the
// resource does not exist in that revision. If both sides are equal, the content of its
// files differs.
type Difference struct {
	Ref           store.Ref
	Before, After store.Resource // including secrets
}

// Diff returns the resources that differ between two revisions, ordered by kind and name.
// Both are at most the revision of live, the live state. files returns the digest of the
// files that a live resource was built from.
func (h *History) Diff(live *store.State, files func(store.Ref) string, from, to int64) ([]Difference, error) {
	for field, n := range map[invalid.Path]int64{"from": from, "to": to} {
		if n < 0 || n > live.Revision() {
			return nil, h.unknown(field, n, live)
		}
	}
	before, err := h.at(live, from, "from")
	if err != nil {
		return nil, err
	}
	after, err := h.at(live, to, "to")
	if err != nil {
		return nil, err
	}
	touched := before
	if to < from {
		touched = after
	}
	var out []Difference
	for ref := range touched {
		b, a := before.get(live, files, ref), after.get(live, files, ref)
		if same(b, a) {
			continue
		}
		out = append(out, Difference{Ref: ref, Before: b.Resource, After: a.Resource})
	}
	slices.SortFunc(out, func(a, b Difference) int { return a.Ref.Compare(b.Ref) })
	return out, nil
}

// same reports whether a resource is the same in two revisions.
func same(b, a Prior) bool {
	if b.Resource == nil || a.Resource == nil {
		return b.Resource == nil && a.Resource == nil
	}
	return b.Files == a.Files && store.SameContent(b.Resource, a.Resource)
}

// Rollback returns the edit that rolls live, the live state, back to a revision. The
// edit is valid only on live.
func (h *History) Rollback(live *store.State, to int64) (store.Edit, error) {
	if to < 0 || to > live.Revision() {
		return store.Edit{}, h.unknown("revision", to, live)
	}
	past, err := h.at(live, to, "revision")
	if err != nil {
		return store.Edit{}, err
	}
	e := store.Edit{Rollback: &store.Rollback{Revision: to, Files: map[store.Ref]string{}}}
	for _, ref := range slices.SortedFunc(maps.Keys(past), store.Ref.Compare) {
		p := past[ref]
		at := invalid.Path(store.KindName(ref.Kind)).Key(ref.Name)
		switch {
		case p.Resource != nil:
			e.Puts = append(e.Puts, store.Put{Path: at, Resource: store.WithoutOutput(p.Resource)})
			if p.Files != "" {
				e.Rollback.Files[ref] = p.Files
			}
		case live.Get(ref.Kind, ref.Name) != nil:
			e.Deletes = append(e.Deletes, store.Delete{Path: at, Kind: ref.Kind, Name: ref.Name})
		}
	}
	e.ExpectedRevision = new(live.Revision())
	return e, nil
}

// A priorState holds the resources of an earlier revision that differ, or may differ, from
// the live ones.
type priorState map[store.Ref]Prior

// at returns how a revision differs from live.
func (h *History) at(live *store.State, n int64, field invalid.Path) (priorState, error) {
	p := priorState{}
	complete, err := h.store.EachPrior(n, live.Revision(), func(prior Prior) {
		if _, ok := p[prior.Ref]; !ok { // the oldest prior after n holds the state at n
			p[prior.Ref] = prior
		}
	})
	switch {
	case err != nil:
		return nil, errStore(err)
	case !complete:
		return nil, h.notStored(field, n+1)
	}
	return p, nil
}

// get returns a resource as of the revision.
func (p priorState) get(live *store.State, files func(store.Ref) string, ref store.Ref) Prior {
	if prior, ok := p[ref]; ok {
		return prior
	}
	return Prior{Ref: ref, Resource: live.Get(ref.Kind, ref.Name), Files: files(ref)}
}

func (h *History) unknown(field invalid.Path, n int64, live *store.State) error {
	return invalid.Errorf(invalid.NotFound, field, "is %d, but revisions run from 0 to %d, the live one", n, live.Revision())
}

// notStored reports that the record of a revision is missing.
func (h *History) notStored(field invalid.Path, n int64) error {
	oldest, err := h.store.Oldest()
	switch {
	case err != nil:
		return errStore(err)
	case oldest == 0:
		return invalid.Errorf(invalid.NotFound, field, "there is no record of revision %d: no revision is stored yet", n)
	}
	return invalid.Errorf(invalid.NotFound, field, "there is no record of revision %d: the oldest one stored is %d (--revision-history bounds them)", n, oldest)
}

func errStore(err error) error {
	return invalid.Errorf(invalid.Unavailable, "", "the store cannot be read: %v", err)
}
