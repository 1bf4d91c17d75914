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
	// Logger is handed to what is built. Nil discards.
	Logger hclog.Logger

	// Observer is told of what happens at endpoints. It must not block. Nil:
	// nobody is.
	Observer func(upstream.Event)

	// Filling is shared by the upstreams that are built, as upstream.Options has
	// it. It may be nil.
	Filling chan struct{}

	// Descriptors is what the upstreams that are built have their connections'
	// from. It may be nil.
	Descriptors *socket.Descriptors

	// FileRoots are the directories below which files are read. Nil: none is.
	FileRoots fileroot.Roots

	// Blocking runs f, which reads files and so may hang for as long as a file
	// system does, and returns when f has returned or ctx has ended; then with an
	// error, and f still running. Nil: f is called.
	Blocking func(ctx context.Context, f func()) error
}

// Compile builds what the draft makes live after prev, of what was gathered for
// it. It reads no file and parses no key. Faults and warnings go to bad; if there
// are faults, the snapshot must not be used, and neither if something is missing:
// then it is to be gathered too.
//
// A resource that is down in prev and not put by the draft is tried again, and
// may stay down. Any other that cannot be built is a fault.
func (c Compiler) Compile(prev *Snapshot, d *store.Draft, m *Material, bad *invalid.List) (next *Snapshot, missing Needs) {
	j := &job{prev: prev, draft: d, state: d.State(), material: m, bad: bad}
	return c.compile(j), j.needs
}

// Restore builds what can be made live of a stored state, and reads what that
// needs. The rest is down.
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
	lenient bool // nothing is a fault: what cannot be built is down

	material *Material // what was gathered for it
	needs    Needs     // what was not

	observer    func(upstream.Event)
	filling     chan struct{}
	descriptors *socket.Descriptors
	log         hclog.Logger
}

// configure hands the job what the compiler was given.
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

// A scope gathers what is wrong with one resource, by paths relative to it, and
// decides what that means. It resolves references to other resources, and checks what
// several kinds have in common.
type scope struct {
	invalid.List
	job      *job
	ref      store.Ref
	standing []invalid.Warning
}

// What compiles a resource of each kind, in its scope.
type (
	upstreamScope struct{ *scope }
	listenerScope struct{ *scope }
	routeScope    struct{ *scope }
)

// notes is what is odd about a live object. It is kept with the object, to be
// said again when the object is reused.
type notes struct {
	warnings []invalid.Warning // to whoever writes the resource
	standing []invalid.Warning // to everybody, for as long as it is live
}

// scope begins the checks of a resource. What was live as it is has been checked
// before; anything else must hold nothing that this version does not know.
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

// path returns the resource's path in the request, or one that names it.
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

// home returns the path that names the resource outside of any request.
func (s *scope) home() invalid.Path {
	return invalid.Path(store.KindName(s.ref.Kind)).Key(s.ref.Name)
}

// warnStanding warns of what weakens security for as long as it stands.
func (s *scope) warnStanding(code string, p invalid.Path, format string, args ...any) {
	s.Warn(code, p, format, args...)
	s.standing = append(s.standing, invalid.Warning{Code: code, Field: p, Message: fmt.Sprintf(format, args...)})
}

// notes returns the warnings so far.
func (s *scope) notes() notes { return notes{s.Warnings(), s.standing} }

// reuse says the notes of an object that stays live.
func (s *scope) reuse(n notes) {
	for _, w := range n.warnings {
		s.Warned(w)
	}
	s.standing = n.standing
}

// close ends the checks. It returns why the resource is down; "" if it is up, or
// if its faults fail the whole compile.
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

// addFaults takes over faults as package certs reports them.
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

// sameInputs reports whether two messages ask for the same, whatever their
// labels and their place in the history.
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
