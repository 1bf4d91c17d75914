package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Bounds on what the desired state may hold.
const (
	MaxPerKind    = 10_000 // resources of one kind
	MaxLabels     = 64     // labels of one resource
	MaxLabelBytes = 256    // of a label's key, and of its value
	MaxComment    = 1024   // bytes of an edit's comment

	MaxResourceBytes = 12 << 20 // of a resource as a message, so that it can be read back
)

// An Edit is what a write asks for. Its parts happen together or not at all,
// and their order does not matter.
type Edit struct {
	Puts    []Put
	Deletes []Delete

	// Reread are resources whose files are read again: a part of the edit, although
	// their messages stay as they are. One that is gone is left out.
	Reread []Ref

	// RereadSystem has the system's roots read again.
	RereadSystem bool

	// ExpectedRevision, if not nil, must be the live revision.
	ExpectedRevision *int64

	// Prune says what is deleted that is not in Puts. Nil: nothing.
	Prune *Prune

	// CreateOnly refuses to replace a resource by a different one.
	CreateOnly bool

	// DryRun checks and answers, and changes nothing.
	DryRun bool

	// RequireProbe is how many endpoints of each upstream that the edit changes
	// must shake hands with the new settings.
	RequireProbe adminv1.RequireProbe

	// Comment says why. It is logged and shown to watchers.
	Comment string
}

// A Prune chooses resources, of which those are deleted that an edit does not
// name.
type Prune struct {
	Kinds  []adminv1.Kind // at least one
	Labels Selector
}

// PruneAll chooses every resource.
func PruneAll() *Prune { return &Prune{Kinds: Kinds()} }

// A Put creates or replaces a resource. The edit does not keep Resource.
type Put struct {
	Path     invalid.Path // of the resource in the request
	Resource Resource
}

// A Delete removes a resource.
type Delete struct {
	Path invalid.Path // of whatever names the resource in the request
	Kind adminv1.Kind
	Name string
	Etag string // if not empty, must be the present one
}

// A Change is one resource's part in an edit.
type Change struct {
	Kind   adminv1.Kind
	Name   string
	Action adminv1.ChangeAction
}

// A Result is what an edit did.
type Result struct {
	State    *State // that the edit made: live now, unless others followed; with DryRun what would be
	Revision int64  // that is live because of it; with DryRun the one that it was checked against
	Changes  []Change
	Warnings []invalid.Warning

	// Present returns a copy of a resource of State that is fit to be shown. What
	// it says of certificates is of those that the edit put, whatever is live.
	Present func(Resource) Resource
}

// An Update is one step from a revision to the next.
type Update struct {
	Revision  int64
	Changes   []Change   // UNCHANGED ones left out
	Resources []Resource // those that were created or updated, as of the revision
	Comment   string
}

// Size returns about how many bytes the update holds.
func (u Update) Size() int {
	n := 64*len(u.Changes) + len(u.Comment)
	for _, r := range u.Resources {
		n += proto.Size(r)
	}
	return n
}

// Update returns the step that the draft makes.
func (d *Draft) Update(comment string) Update {
	u := Update{Revision: d.next.revision, Comment: comment}
	for _, c := range d.changes {
		if c.Action == adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			continue
		}
		u.Changes = append(u.Changes, c)
		if r := d.next.Get(c.Kind, c.Name); r != nil {
			u.Resources = append(u.Resources, r)
		}
	}
	return u
}

// A Draft is a state that an edit would make. It belongs to one goroutine.
type Draft struct {
	base    *State
	next    *State
	changes []Change
	at      map[Ref]int // index in changes
	paths   map[Ref]invalid.Path
	stale   map[Ref]invalid.Fault // of puts that change nothing, so that it does not matter yet
	outrun  *invalid.Fault        // the same of the whole edit
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Edit drafts the state that e makes of s. What is wrong with e goes to bad;
// the draft is then made of what is left, so that further checks can find
// further faults, and must not be committed.
func (s *State) Edit(e Edit, bad *invalid.List) *Draft {
	d := &Draft{base: s, at: map[Ref]int{}, paths: map[Ref]invalid.Path{}, stale: map[Ref]invalid.Fault{}}
	if len(e.Comment) > MaxComment {
		bad.Add("options.comment", "has %d bytes; at most %d are allowed", len(e.Comment), MaxComment)
	} else if holdsKey(e.Comment) {
		bad.Add("options.comment", "holds a private key, and would be logged and shown")
	}

	if _, ok := adminv1.RequireProbe_name[int32(e.RequireProbe)]; !ok {
		bad.Add("options.require_probe", "is %d, which this version does not know", int32(e.RequireProbe))
	}

	edited := map[adminv1.Kind]map[string]Resource{}
	in := func(k adminv1.Kind) map[string]Resource {
		if edited[k] == nil {
			edited[k] = map[string]Resource{}
			if c := s.collections[k]; c != nil {
				edited[k] = maps.Clone(c.byName)
			}
		}
		return edited[k]
	}
	for _, p := range e.Puts {
		d.put(p, e.CreateOnly, in, bad)
	}
	for _, del := range e.Deletes {
		d.delete(del, in, bad)
	}
	if e.Prune != nil {
		d.prune(*e.Prune, in, bad)
	}
	if want := e.ExpectedRevision; want != nil && *want != s.revision {
		d.outrun = &invalid.Fault{Class: invalid.Conflict, Field: "expected_revision",
			Message: fmt.Sprintf("is %d, but the live revision is %d: read it again and redo the change", *want, s.revision)}
		if d.Changed() {
			bad.Fault(*d.outrun)
		}
	}
	for _, ref := range e.Reread {
		if s.Get(ref.Kind, ref.Name) != nil && !d.names(ref) {
			d.record(ref, "", adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED)
		}
	}

	d.next = &State{revision: s.revision, collections: maps.Clone(s.collections)}
	if d.next.collections == nil {
		d.next.collections = map[adminv1.Kind]*collection{}
	}
	for k, byName := range edited {
		if len(byName) > MaxPerKind {
			bad.AddClass(invalid.Exhausted, "", "there would be %d resources of kind %s; at most %d are allowed", len(byName), KindName(k), MaxPerKind)
		}
		d.next.collections[k] = newCollection(byName)
	}
	d.checkReferences(bad)
	d.stamp()
	return d
}

// prune deletes what p chooses and the edit does not name.
func (d *Draft) prune(p Prune, in func(adminv1.Kind) map[string]Resource, bad *invalid.List) {
	if len(p.Kinds) == 0 {
		bad.Add("prune.kinds", "must name at least one kind of resource to prune")
	}
	for i, k := range p.Kinds {
		if !ValidKind(k) {
			bad.Add(invalid.Path("prune.kinds").Index(i), "must be a kind of resource, such as KIND_LISTENER")
			continue
		}
		for _, r := range d.base.List(k) {
			if ref := RefOf(r); !d.names(ref) && p.Labels.Matches(r.GetLabels()) {
				delete(in(k), ref.Name)
				d.record(ref, "", adminv1.ChangeAction_CHANGE_ACTION_DELETED)
			}
		}
	}
}

func (d *Draft) put(p Put, createOnly bool, in func(adminv1.Kind) map[string]Resource, bad *invalid.List) {
	ref := RefOf(p.Resource)
	if !p.Resource.ProtoReflect().IsValid() {
		bad.Add(p.Path, "must be set")
		return
	}
	if !namePattern.MatchString(ref.Name) {
		// It goes into the draft all the same, so that its other faults are found.
		bad.Add(p.Path.Field("name"), "is %s; it must be 1 to 63 characters of a-z, 0-9 and -, and neither begin nor end with -", quote(ref.Name))
	}
	checkLabels(p, bad)
	if n := proto.Size(p.Resource); n > MaxResourceBytes {
		bad.AddClass(invalid.Exhausted, p.Path, "has %d bytes; at most %d are allowed", n, MaxResourceBytes)
	}
	if d.names(ref) {
		bad.Add(p.Path.Field("name"), "%v is in the request twice (also at %s)", ref, d.paths[ref])
		return
	}
	present := d.base.Get(ref.Kind, ref.Name)
	stale := checkEtag(p.Path.Field("etag"), ref, p.Resource.GetEtag(), present)

	r := proto.Clone(p.Resource).(Resource)
	setOutput(r, "", 0)
	action := adminv1.ChangeAction_CHANGE_ACTION_CREATED
	if present != nil {
		action = adminv1.ChangeAction_CHANGE_ACTION_UPDATED
		keepSecrets(r, present)
		setOutput(r, present.GetEtag(), present.GetRevision())
		if proto.Equal(r, present) {
			action = adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED
			r = present
		}
	}
	switch {
	case action == adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED:
		// The answer to a first try may have been lost: what it asked for is so,
		// whatever the etag was.
		if stale != nil {
			d.stale[ref] = *stale
		}
		if createOnly {
			d.stale[ref] = exists(p.Path, ref)
		}
	case createOnly && present != nil:
		bad.Fault(exists(p.Path, ref))
	case stale != nil:
		bad.Fault(*stale)
	}
	in(ref.Kind)[ref.Name] = r
	d.record(ref, p.Path, action)
}

func exists(p invalid.Path, ref Ref) invalid.Fault {
	return invalid.Fault{Class: invalid.Exists, Field: p.Field("name"),
		Message: fmt.Sprintf("%v exists, and options.create_only is set: choose another name, or leave create_only out to replace it", ref)}
}

func (d *Draft) delete(del Delete, in func(adminv1.Kind) map[string]Resource, bad *invalid.List) {
	ref := Ref{del.Kind, del.Name}
	if !ValidKind(ref.Kind) {
		bad.Add(del.Path.Field("kind"), "must be a kind of resource, such as KIND_LISTENER")
		return
	}
	if d.names(ref) {
		bad.Add(del.Path.Field("name"), "%v is in the request twice (also at %s)", ref, d.paths[ref])
		return
	}
	present := d.base.Get(ref.Kind, ref.Name)
	if present == nil && del.Etag != "" {
		// It was there when its etag was read: the answer to a first try was lost.
		d.record(ref, del.Path, adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED)
		return
	}
	if present == nil {
		bad.AddClass(invalid.NotFound, del.Path.Field("name"), "there is no %s %s", KindName(ref.Kind), quote(ref.Name))
		return
	}
	if stale := checkEtag(del.Path.Field("etag"), ref, del.Etag, present); stale != nil {
		bad.Fault(*stale)
	}
	delete(in(ref.Kind), ref.Name)
	d.record(ref, del.Path, adminv1.ChangeAction_CHANGE_ACTION_DELETED)
}

func (d *Draft) names(ref Ref) bool {
	_, ok := d.at[ref]
	return ok
}

func (d *Draft) record(ref Ref, p invalid.Path, a adminv1.ChangeAction) {
	d.at[ref] = len(d.changes)
	d.paths[ref] = p
	d.changes = append(d.changes, Change{ref.Kind, ref.Name, a})
}

// checkReferences finds references to what does not exist. Those of a resource
// in the edit are that resource's fault; those of others are the fault of the
// delete that would leave them dangling.
func (d *Draft) checkReferences(bad *invalid.List) {
	deletes := false
	for _, c := range d.changes {
		if c.Action == adminv1.ChangeAction_CHANGE_ACTION_DELETED {
			deletes = true
			continue
		}
		ref := Ref{c.Kind, c.Name}
		for _, u := range uses(d.next.Get(c.Kind, c.Name)) {
			if d.next.Get(u.ref.Kind, u.ref.Name) == nil {
				bad.Add(d.paths[ref].Field(string(u.field)), "there is no %s %s", KindName(u.ref.Kind), quote(u.ref.Name))
			}
		}
	}
	if !deletes {
		return
	}
	for _, r := range d.next.All() {
		from := RefOf(r)
		if d.names(from) {
			continue // checked above
		}
		for _, u := range uses(r) {
			if d.next.Get(u.ref.Kind, u.ref.Name) == nil {
				bad.AddClass(invalid.InUse, d.paths[u.ref], "%v is still used by %v (%s)", u.ref, from, u.field)
			}
		}
	}
}

// stamp gives the next state its revision, and what changed its etag.
func (d *Draft) stamp() {
	if !d.Changed() {
		return
	}
	d.next.revision = d.base.revision + 1
	for _, c := range d.changes {
		switch c.Action {
		case adminv1.ChangeAction_CHANGE_ACTION_CREATED, adminv1.ChangeAction_CHANGE_ACTION_UPDATED:
			// Ours: put cloned it.
			r := d.next.Get(c.Kind, c.Name)
			setOutput(r, etag(r, d.next.revision), d.next.revision)
		}
	}
}

// Touch marks resources of the edit as updated although their messages are as
// they were, because what they refer to outside the state (a file) is not. That
// their etags were stale matters then, and goes to bad.
func (d *Draft) Touch(bad *invalid.List, refs ...Ref) {
	changed := d.Changed()
	touched := map[adminv1.Kind]map[string]Resource{}
	for _, ref := range refs {
		i, ok := d.at[ref]
		if !ok || d.changes[i].Action != adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			continue
		}
		if stale, ok := d.stale[ref]; ok {
			bad.Fault(stale)
		}
		d.changes[i].Action = adminv1.ChangeAction_CHANGE_ACTION_UPDATED
		if touched[ref.Kind] == nil {
			touched[ref.Kind] = maps.Clone(d.next.collections[ref.Kind].byName)
		}
		touched[ref.Kind][ref.Name] = proto.Clone(d.next.Get(ref.Kind, ref.Name)).(Resource)
	}
	for k, byName := range touched {
		d.next.collections[k] = newCollection(byName)
	}
	if d.outrun != nil && !changed && d.Changed() {
		bad.Fault(*d.outrun)
	}
	d.stamp()
}

// Base returns the state that was edited.
func (d *Draft) Base() *State { return d.base }

// State returns the state that the edit makes.
func (d *Draft) State() *State { return d.next }

// Changes returns each resource of the edit and what happens to it, in the
// order of the edit; pruned ones last.
func (d *Draft) Changes() []Change { return slices.Clone(d.changes) }

// Changed reports whether the edit changes anything.
func (d *Draft) Changed() bool {
	return slices.ContainsFunc(d.changes, func(c Change) bool {
		return c.Action != adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED
	})
}

// Puts reports whether the edit puts the resource.
func (d *Draft) Puts(ref Ref) bool {
	i, ok := d.at[ref]
	return ok && d.changes[i].Action != adminv1.ChangeAction_CHANGE_ACTION_DELETED
}

// Path returns the path of the resource in the request, or one that names it
// where the request does not hold it.
func (d *Draft) Path(ref Ref) invalid.Path {
	if p := d.paths[ref]; p != "" {
		return p
	}
	return invalid.Path(KindName(ref.Kind)).Key(ref.Name)
}

// checkEtag returns why an etag does not allow a write; nil if it does.
func checkEtag(p invalid.Path, ref Ref, etag string, present Resource) *invalid.Fault {
	stale := func(format string, args ...any) *invalid.Fault {
		return &invalid.Fault{Class: invalid.Conflict, Field: p, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case etag == "":
	case present == nil:
		return stale("is set, but there is no %v any more: leave it out to create it", ref)
	case etag != present.GetEtag():
		return stale("is not the present one: %v was changed in revision %d; read it again and redo the change", ref, present.GetRevision())
	}
	return nil
}

func checkLabels(p Put, bad *invalid.List) {
	labels := p.Resource.GetLabels()
	at := p.Path.Field("labels")
	if len(labels) > MaxLabels {
		bad.Add(at, "has %d entries; at most %d are allowed", len(labels), MaxLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if holdsKey(k) || holdsKey(labels[k]) {
			bad.Add(at, "hold a private key, and would be shown to everyone")
		} else if k == "" || len(k) > MaxLabelBytes {
			bad.Add(at, "has a key of %d bytes; it must have 1 to %d", len(k), MaxLabelBytes)
		} else if n := len(labels[k]); n > MaxLabelBytes {
			bad.Add(at.Key(k), "has %d bytes; at most %d are allowed", n, MaxLabelBytes)
		}
	}
}

// holdsKey reports whether free text holds a private key in PEM. It goes where
// it was not meant to, and free text comes out again.
func holdsKey(s string) bool { return strings.Contains(s, "PRIVATE KEY-----") }

// Complete returns a resource as a put of it would store it: with the secrets
// that it leaves out and that are stored. It returns nil if r is not valid.
func (s *State) Complete(r Resource) Resource {
	if !r.ProtoReflect().IsValid() {
		return nil
	}
	ref, c := RefOf(r), proto.Clone(r).(Resource)
	setOutput(c, "", 0)
	if present := s.Get(ref.Kind, ref.Name); present != nil {
		keepSecrets(c, present)
	}
	return c
}

// keepSecrets lets a certificate that was read, and so has no key, be written
// back: a key or archive that is left out is the stored one, and with it its
// passphrase. Whether it fits the chain is checked with everything else about
// the certificate.
func keepSecrets(r, present Resource) {
	next, ok := r.(*adminv1.Certificate)
	if !ok {
		return
	}
	stored := present.(*adminv1.Certificate)
	if to, from := next.GetPem(), stored.GetPem(); to != nil && from != nil && to.GetPrivateKey() == "" {
		to.PrivateKey = from.GetPrivateKey()
		to.Passphrase = cmp.Or(to.GetPassphrase(), from.GetPassphrase())
	}
	if to, from := next.GetPkcs12(), stored.GetPkcs12(); to != nil && from != nil && len(to.GetData()) == 0 {
		to.Data = from.GetData()
		to.Passphrase = cmp.Or(to.GetPassphrase(), from.GetPassphrase())
	}
}

// etag returns a short digest of the resource as of the revision.
func etag(r Resource, revision int64) string {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		panic("store: a message that came over the wire does not marshal: " + err.Error())
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(content, uint64(revision)))
	return hex.EncodeToString(sum[:8])
}

// quote quotes a name that may be anything, cut to a readable length.
func quote(name string) string {
	const most = 80
	if len(name) > most {
		return strconv.Quote(name[:most]) + "…"
	}
	return strconv.Quote(name)
}
