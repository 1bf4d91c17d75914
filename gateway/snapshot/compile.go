package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/wellformed"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Compiler builds snapshots. The zero value works.
type Compiler struct {
	// Logger is passed to the objects that are built. Nil discards.
	Logger hclog.Logger

	// Observer receives the events of endpoints. It must not block. It may be nil.
	Observer func(upstream.Event)

	// Filling is passed to all upstreams as upstream.Options.Filling. It may be nil.
	Filling chan struct{}

	// Descriptors limits the file descriptors of the upstreams' connections. It may be
	// nil.
	Descriptors *socket.Descriptors

	// FileRoots are the directories below which files are read. Nil: no files are read.
	FileRoots fileroot.Roots

	// Blocking runs f, which reads files and so may hang. It returns nil when f has
	// returned. If ctx ends first, it returns an error while f is still running. Nil: f
	// is called directly.
	Blocking func(ctx context.Context, f func()) error
}

// Compile builds the snapshot that the draft makes live after prev, from the material
// that was gathered for it. It reads no file and parses no key. Faults and warnings go
// to bad. The snapshot must not be used if there are faults, or if material is
// missing: the caller then gathers that too.
//
// A resource that is down in prev and not put by the draft is retried, and may stay
// down. If any other resource cannot be built, that is a fault.
func (c Compiler) Compile(prev *Snapshot, d *store.Draft, m *Material, bad *invalid.List) (next *Snapshot, missing Needs) {
	j := &job{prev: prev, draft: d, state: d.State(), material: m, bad: bad}
	return c.compile(j), j.needs
}

// Restore builds a snapshot of a stored state and reads the files for it. A resource
// that cannot be built is down.
func (c Compiler) Restore(ctx context.Context, state *store.State) *Snapshot {
	m := c.gatherState(ctx, state)
	return c.compile(&job{prev: new(Snapshot), state: state, material: m, bad: new(invalid.List), lenient: true})
}

// A job is one compile.
type job struct {
	prev    *Snapshot
	next    *Snapshot
	draft   *store.Draft // nil if the state is not new
	state   *store.State
	bad     *invalid.List
	lenient bool // a resource that cannot be built is down, not a fault

	material *Material // gathered for this compile
	needs    Needs     // missing from material

	observer    func(upstream.Event)
	filling     chan struct{}
	descriptors *socket.Descriptors
	log         hclog.Logger
}

// configure sets the compiler's options in the job.
func (c Compiler) configure(j *job) *job {
	j.log, j.observer = c.Logger, c.Observer
	j.filling, j.descriptors = c.Filling, c.Descriptors
	if j.log == nil {
		j.log = hclog.NewNullLogger()
	}
	return j
}

func (c Compiler) compile(j *job) *Snapshot {
	c.configure(j).next = &Snapshot{
		state:        j.state,
		bundles:      map[string]*bundle{},
		certificates: map[string]*certificate{},
		upstreams:    map[string]*liveUpstream{},
		listeners:    map[string]*Listener{},
	}
	for _, r := range j.state.List(adminv1.Kind_KIND_TRUST_BUNDLE) {
		j.next.bundles[r.GetName()] = j.bundle(r.(*adminv1.TrustBundle))
	}
	for _, r := range j.state.List(adminv1.Kind_KIND_CERTIFICATE) {
		j.next.certificates[r.GetName()] = j.certificate(r.(*adminv1.Certificate))
	}
	for _, r := range j.state.List(adminv1.Kind_KIND_UPSTREAM) {
		j.next.upstreams[r.GetName()] = j.upstream(r.(*adminv1.Upstream))
	}
	j.compileListeners()
	j.warnOfWarm()
	return j.next
}

// A scope gathers the faults of one resource, by paths relative to it, and decides
// whether they fail the edit or take the resource down. It resolves references to
// other resources, and checks the settings that several kinds share.
type scope struct {
	invalid.List
	job      *job
	ref      store.Ref
	standing []invalid.Warning
}

// The scopes of each kind, whose methods compile a resource.
type (
	upstreamScope struct{ *scope }
	listenerScope struct{ *scope }
	routeScope    struct{ *scope }
)

// notes holds the warnings about a live object. They are kept with the object and
// reported again when it is reused.
type notes struct {
	warnings []invalid.Warning // for the writer of the resource
	standing []invalid.Warning // in the status, as long as the object is live
}

// scope begins the checks of a resource. Unless the same message is already live, it
// rejects fields and values that this version does not know.
func (j *job) scope(r store.Resource) *scope {
	s := &scope{job: j, ref: store.RefOf(r)}
	if j.lenient || s.written() || len(j.prev.problems) > 0 && s.wasDown() {
		wellformed.Check(r.ProtoReflect(), "", nil, &s.List)
	}
	return s
}

// written reports whether the resource is put by the draft.
func (s *scope) written() bool {
	return s.job.draft != nil && s.job.draft.Puts(s.ref)
}

// path returns the resource's path in the request, or a path that names the resource.
func (s *scope) path() invalid.Path {
	if s.job.draft != nil {
		return s.job.draft.Path(s.ref)
	}
	return s.home()
}

// wasDown reports whether the resource is down already.
func (s *scope) wasDown() bool {
	return slices.ContainsFunc(s.job.prev.problems, func(p Problem) bool { return p.Ref == s.ref })
}

// home returns the path that names the resource outside a request.
func (s *scope) home() invalid.Path {
	return invalid.Path(store.KindName(s.ref.Kind)).Key(s.ref.Name)
}

// warnStanding warns of a setting that weakens security as long as it is live.
func (s *scope) warnStanding(code string, p invalid.Path, format string, args ...any) {
	s.Warn(code, p, format, args...)
	s.standing = append(s.standing, invalid.Warning{Code: code, Field: p, Message: fmt.Sprintf(format, args...)})
}

// notes returns the warnings so far.
func (s *scope) notes() notes { return notes{s.Warnings(), s.standing} }

// reuse repeats the notes of an object that stays live.
func (s *scope) reuse(n notes) {
	for _, w := range n.warnings {
		s.Warned(w)
	}
	s.standing = n.standing
}

// close ends the checks. It returns why the resource is down, or "" if it is up or if
// its faults fail the whole compile.
func (s *scope) close() (down string) {
	if s.Len() > 0 && (s.job.lenient || s.wasDown() && !s.written()) {
		down = s.reason()
		s.job.next.problems = append(s.job.next.problems, Problem{s.ref, down})
		return down
	}
	path := s.path()
	for _, f := range s.Faults() {
		s.job.bad.AddClass(f.Class, path.Join(string(f.Field)), "%s", f.Message)
	}
	if s.written() {
		for _, w := range s.Warnings() {
			w.Field = path.Join(string(w.Field))
			s.job.bad.Warned(w)
		}
	}
	for _, w := range s.standing {
		s.job.next.standing = append(s.job.next.standing, invalid.Warning{Code: w.Code, Field: s.home().Join(string(w.Field)), Message: w.Message})
	}
	return ""
}

// reason returns the faults as one line.
func (s *scope) reason() string {
	var parts []string
	for _, f := range s.Faults() {
		parts = append(parts, f.String())
	}
	return strings.Join(parts, "; ")
}

// addFaults adds the faults that package certs reports.
func (s *scope) addFaults(p invalid.Path, err error) { addFaults(&s.List, p, err) }

func addFaults(s *invalid.List, p invalid.Path, err error) {
	var faults certs.Faults
	if !errors.As(err, &faults) {
		s.Add(p, "%v", err)
		return
	}
	for _, f := range faults {
		s.Add(p.Join(f.Field), "%s", f.Problem)
	}
}

// sameInputs reports whether two messages are equal except for labels, etags and
// revisions.
func sameInputs[M interface {
	comparable
	store.Resource
}](a, b M) bool {
	if a == b {
		return true
	}
	return proto.Equal(inputs(a), inputs(b))
}

func inputs[M store.Resource](r M) proto.Message {
	c := proto.Clone(r)
	switch c := c.(type) {
	case *adminv1.Listener:
		c.Labels, c.Etag, c.Revision = nil, "", 0
	case *adminv1.Route:
		c.Labels, c.Etag, c.Revision = nil, "", 0
	case *adminv1.Upstream:
		c.Labels, c.Etag, c.Revision = nil, "", 0
	case *adminv1.Certificate:
		c.Labels, c.Etag, c.Revision = nil, "", 0
	case *adminv1.TrustBundle:
		c.Labels, c.Etag, c.Revision = nil, "", 0
	}
	return c
}
