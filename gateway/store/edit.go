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
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Limits of the desired state.
const (
	MaxPerKind    = 10_000 // resources of one kind
	MaxLabels     = 64     // labels of one resource
	MaxLabelBytes = 256    // bytes of a label's key, and of its value
	MaxComment    = 1024   // bytes of an edit's comment

	// MaxResourceBytes bounds a resource's message, so that every client can read it:
	// many gRPC clients reject messages above 4 MiB.
	MaxResourceBytes = 3 << 20
)

// An Edit is one write. Its parts are applied together or not at all, and their order
// does not matter.
type Edit struct {
	Puts    []Put
	Deletes []Delete

	// Reread names resources whose files are read again although their messages do not
	// change. Resources that no longer exist are skipped.
	Reread []Ref

	// RereadSystem reads the system's roots again.
	RereadSystem bool

	// ExpectedRevision, if not nil, must be the live revision.
	ExpectedRevision *int64

	// Prune selects the resources to delete unless they are in Puts. Nil: no
	// resources.
	Prune *Prune

	// CreateOnly rejects puts that would change an existing resource.
	CreateOnly bool

	// DryRun checks the edit and returns its result, but changes nothing.
	DryRun bool

	// RequireProbe says how many endpoints of each upstream that the edit changes must
	// pass a TLS handshake with the new settings.
	RequireProbe adminv1.RequireProbe

	// Comment says why the edit is made. It is logged and shown to watchers.
	Comment string

	// ConfirmWithin, if not 0, is the time within which the revision must be confirmed.
	ConfirmWithin time.Duration

	// Rollout, if not nil, commits the revision as a rollout: the canaries make it live
	// first, then the other gateways of the fleet.
	Rollout *adminv1.Rollout

	// Impact adds the impact of the edit on open connections and sessions to the
	// result.
	Impact bool

	// Force makes the edit live even if some of its resources cannot be built or bound.
	// Such resources are down.
	Force bool

	// Origin identifies the caller. The zero value stands for the gateway.
	Origin Origin

	// Rollback, if not nil, says that the edit rolls back to an earlier revision.
	Rollback *Rollback

	// Follow, if not nil, is the state to make live. Puts then only names the resources
	// whose files are read.
	Follow *Followed
}

// An Origin identifies the caller and the method of an edit.
type Origin struct {
	Principal string // "uid:0", "cert:CN=ops"; "": the gateway
	Address   string // the caller's address; "" for a unix socket or the gateway
	Transport adminv1.Transport
	Method    string // the full method name; "start", "SIGHUP" or "file" for the gateway's own edits
}

// A Rollback describes an edit that rolls back to an earlier revision.
type Rollback struct {
	Revision int64

	// Files holds the digests of the resources' files in that revision. The edit does
	// not restore the files.
	Files map[Ref]string
}

// A Prune selects resources. The edit deletes selected resources that it does
// not name.
type Prune struct {
	Kinds  []adminv1.Kind // at least one
	Labels Selector
}

// PruneAll selects every resource.
func PruneAll() *Prune { return &Prune{Kinds: Kinds()} }

// A Put creates or replaces a resource. The edit copies Resource.
type Put struct {
	Path     invalid.Path // the path of the resource in the request
	Resource Resource
}

// A Delete removes a resource.
type Delete struct {
	Path invalid.Path // the path of the field that names the resource in the request
	Kind adminv1.Kind
	Name string
	Etag string // if not empty, must match the etag of the stored resource
}

// A Change is one resource's part in an edit.
type Change struct {
	Kind   adminv1.Kind
	Name   string
	Action adminv1.ChangeAction
}

// A Result is the result of an edit.
type Result struct {
	Base     *State // the state that was edited
	State    *State // the new state; with DryRun the state that the edit would create
	Revision int64  // the new live revision; with DryRun the revision that the edit was checked against
	Changes  []Change
	Warnings []invalid.Warning
	Impact   *adminv1.Impact  // the impact on open connections and sessions; nil: not requested
	Pending  *adminv1.Pending // set if the revision waits to be confirmed

	// Present returns a copy of a resource of State to show to clients. It describes the
	// certificates of State, even if a later edit is already live.
	Present func(Resource) Resource
}

// An Update is one step from a revision to the next.
type Update struct {
	Revision  int64
	Changes   []Change   // without UNCHANGED ones
	Resources []Resource // the created or updated resources, in the state of the revision
	Comment   string
}

// Size returns the approximate size of the update in bytes.
func (u Update) Size() int {
	n := 64*len(u.Changes) + len(u.Comment)
	for _, r := range u.Resources {
		n += proto.Size(r)
	}
	return n
}

// Update returns the step from the draft's base to its state.
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

// A Draft is the state that an edit would create. It belongs to one goroutine.
type Draft struct {
	base          *State
	next          *State
	changes       []Change
	at            map[Ref]int // index in changes
	paths         map[Ref]invalid.Path
	stale         map[Ref]invalid.Fault // stale etags of puts that change nothing; not faults unless Touch changes the resource
	staleRevision *invalid.Fault        // stale revision of the whole edit; not a fault unless Touch changes a resource
	followed      bool                  // another gateway made the state: it keeps its etags and revisions
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Edit drafts the state that e makes from s. Faults of e go to bad. After a fault, the
// draft holds the remaining parts so that later checks can find more faults, but it must
// not be committed.
func (s *State) Edit(e Edit, bad *invalid.List) *Draft {
	d := &Draft{base: s, at: map[Ref]int{}, paths: map[Ref]invalid.Path{}, stale: map[Ref]invalid.Fault{}}
	if len(e.Comment) > MaxComment {
		bad.Add("options.comment", "has %d bytes; at most %d are allowed", len(e.Comment), MaxComment)
	} else if holdsKey(e.Comment) {
		bad.Add("options.comment", "holds a private key, but comments are logged and shown")
	}

	if _, ok := adminv1.RequireProbe_name[int32(e.RequireProbe)]; !ok {
		bad.Add("options.require_probe", "is %d, which this version does not know", int32(e.RequireProbe))
	}

	// The resources that the edit changes; nil for those that it deletes.
	edited := map[adminv1.Kind]map[string]Resource{}
	in := func(k adminv1.Kind) map[string]Resource {
		if edited[k] == nil {
			edited[k] = map[string]Resource{}
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
		d.staleRevision = &invalid.Fault{Class: invalid.Conflict, Field: "expected_revision",
			Message: fmt.Sprintf("is %d, but the live revision is %d: read it again and redo the change", *want, s.revision)}
		if d.Changed() {
			bad.Fault(*d.staleRevision)
		}
	}
	for _, ref := range e.Reread {
		if s.Get(ref.Kind, ref.Name) != nil && !d.names(ref) {
			d.record(ref, "", adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED)
		}
	}

	d.next = s.with(edited)
	for _, k := range Kinds() {
		if n := d.next.Len(k); n > MaxPerKind && n > s.Len(k) {
			bad.AddClass(invalid.Exhausted, "", "there would be %d resources of kind %s; at most %d are allowed", n, KindName(k), MaxPerKind)
		}
	}
	d.checkReferences(bad)
	d.stamp()
	return d
}

// prune deletes the resources that p selects and the edit does not name.
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
				in(k)[ref.Name] = nil
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
		// The resource stays in the draft, so that its other faults are found.
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
		if SameMessage(r, present) {
			action = adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED
			r = present
		}
	}
	switch {
	case action == adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED:
		// The put changes nothing. It may be a retry of a write whose response was
		// lost, so a stale etag is not a fault.
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
	if r != present {
		in(ref.Kind)[ref.Name] = r
	}
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
		// The etag shows that the resource existed, so this is a retry of a delete whose
		// response was lost.
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
	in(ref.Kind)[ref.Name] = nil
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

// checkReferences finds references to missing resources. It reports a reference from a
// resource in the edit at that resource. It reports any other reference at the delete
// that would make it dangle.
func (d *Draft) checkReferences(bad *invalid.List) {
	for _, c := range d.changes {
		if c.Action == adminv1.ChangeAction_CHANGE_ACTION_DELETED {
			continue
		}
		ref := Ref{c.Kind, c.Name}
		for _, u := range uses(d.next.Get(c.Kind, c.Name)) {
			known := d.next.resources(u.kind)
			for i, name := range u.names {
				if known.Get(name) == nil {
					bad.Add(d.paths[ref].Field(string(u.field(i))), "there is no %s %s", KindName(u.kind), quote(name))
				}
			}
		}
	}
	users := map[string]Ref{} // resources outside the edit that use a deleted resource
	for _, c := range d.changes {
		if c.Action != adminv1.ChangeAction_CHANGE_ACTION_DELETED {
			continue
		}
		for from := range d.next.Users(Ref{c.Kind, c.Name}) {
			if !d.names(from) {
				users[userKey(from)] = from
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(users)) {
		from := users[key]
		for _, u := range uses(d.next.Get(from.Kind, from.Name)) {
			for i, name := range u.names {
				if ref := (Ref{u.kind, name}); d.next.Get(u.kind, name) == nil {
					bad.AddClass(invalid.InUse, d.paths[ref], "%v is still used by %v (%s)", ref, from, u.field(i))
				}
			}
		}
	}
}

// stamp sets the revision of the next state, and the etags of changed resources.
func (d *Draft) stamp() {
	if !d.Changed() {
		return
	}
	d.next.revision = d.base.revision + 1
	for _, c := range d.changes {
		switch c.Action {
		case adminv1.ChangeAction_CHANGE_ACTION_CREATED, adminv1.ChangeAction_CHANGE_ACTION_UPDATED:
			// Safe to modify: put cloned it.
			r := d.next.Get(c.Kind, c.Name)
			setOutput(r, etag(r, d.next.revision), d.next.revision)
		}
	}
}

// Touch marks resources of the edit as updated although their messages are unchanged,
// because the files that they refer to have changed. A stale etag of such a resource
// is then a fault and goes to bad. A followed draft is not touched.
func (d *Draft) Touch(bad *invalid.List, refs ...Ref) {
	if d.followed {
		return
	}
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
			touched[ref.Kind] = map[string]Resource{}
		}
		touched[ref.Kind][ref.Name] = proto.Clone(d.next.Get(ref.Kind, ref.Name)).(Resource)
	}
	*d.next = *d.next.with(touched) // in place, because a snapshot compiled from the draft refers to this state
	if d.staleRevision != nil && !changed && d.Changed() {
		bad.Fault(*d.staleRevision)
	}
	d.stamp()
}

// Base returns the state that was edited.
func (d *Draft) Base() *State { return d.base }

// State returns the state that the edit creates.
func (d *Draft) State() *State { return d.next }

// Changes returns each resource of the edit and its change, in the order of the edit and
// with pruned resources last.
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

// Path returns the path of the resource in the request, or a path that names the
// resource if the request does not contain it.
func (d *Draft) Path(ref Ref) invalid.Path {
	if p := d.paths[ref]; p != "" {
		return p
	}
	return invalid.Path(KindName(ref.Kind)).Key(ref.Name)
}

// checkEtag returns a fault if an etag does not allow a write.
func checkEtag(p invalid.Path, ref Ref, etag string, present Resource) *invalid.Fault {
	stale := func(format string, args ...any) *invalid.Fault {
		return &invalid.Fault{Class: invalid.Conflict, Field: p, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case etag == "":
	case present == nil:
		return stale("is set, but %v no longer exists: leave the etag out to create the resource", ref)
	case etag != present.GetEtag():
		return stale("is stale: %v was changed in revision %d; read it again and redo the change", ref, present.GetRevision())
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
			bad.Add(at, "hold a private key, but labels are shown to every client")
		} else if k == "" || len(k) > MaxLabelBytes {
			bad.Add(at, "has a key of %d bytes; it must have 1 to %d", len(k), MaxLabelBytes)
		} else if n := len(labels[k]); n > MaxLabelBytes {
			bad.Add(at.Key(k), "has %d bytes; at most %d are allowed", n, MaxLabelBytes)
		}
	}
}

// holdsKey reports whether free text holds a private key in PEM. Free text is shown and
// logged, so a key that was pasted there by mistake would leak.
func holdsKey(s string) bool { return strings.Contains(s, "PRIVATE KEY-----") }

// Complete returns the resource that a put of r would store: r, with stored secrets
// for those that r leaves out. It returns nil if r is not valid.
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

// keepSecrets copies the stored secrets to a resource that leaves them out, because a
// client that reads a resource and writes it back does not have them.
func keepSecrets(r, present Resource) {
	switch next := r.(type) {
	case *adminv1.Certificate:
		keepKey(next, present.(*adminv1.Certificate))
	case *adminv1.Upstream:
		keepPassword(next.GetVia(), present.(*adminv1.Upstream).GetVia())
	}
}

// keepPassword copies the stored password of a proxy only for the same user at the same
// proxy. Sending it to a different proxy, or over a less protected connection, would
// reveal it.
func keepPassword(next, stored *adminv1.Via) {
	to, from := next.GetHttpConnect().GetCredentials(), stored.GetHttpConnect().GetCredentials()
	same := proto.Equal(next.GetHttpConnect().GetTls(), stored.GetHttpConnect().GetTls()) && next.GetHttpConnect().GetAddress() == stored.GetHttpConnect().GetAddress()
	if next.GetSocks5() != nil {
		to, from = next.GetSocks5().GetCredentials(), stored.GetSocks5().GetCredentials()
		same = next.GetSocks5().GetAddress() == stored.GetSocks5().GetAddress()
	}
	if same && to != nil && from != nil && to.GetUsername() == from.GetUsername() && to.GetPassword() == "" {
		to.Password = from.GetPassword()
	}
}

// keepKey copies the stored key or archive of a certificate together with its passphrase.
// The compile checks later whether the key matches the chain.
func keepKey(next, stored *adminv1.Certificate) {
	if to, from := next.GetPem(), stored.GetPem(); to != nil && from != nil && to.GetPrivateKey() == "" {
		to.PrivateKey = from.GetPrivateKey()
		to.Passphrase = cmp.Or(to.GetPassphrase(), from.GetPassphrase())
	}
	if to, from := next.GetPkcs12(), stored.GetPkcs12(); to != nil && from != nil && len(to.GetData()) == 0 {
		to.Data = from.GetData()
		to.Passphrase = cmp.Or(to.GetPassphrase(), from.GetPassphrase())
	}
}

// etag returns a short digest of the resource and the revision.
func etag(r Resource, revision int64) string {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(content(r), uint64(revision)))
	return hex.EncodeToString(sum[:8])
}

// quote quotes an arbitrary name, cut to a readable length.
func quote(name string) string {
	const most = 80
	if len(name) > most {
		return strconv.Quote(name[:most]) + "…"
	}
	return strconv.Quote(name)
}
