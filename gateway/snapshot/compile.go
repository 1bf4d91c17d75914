package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/tickets"
	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
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

	// Trackers are passed to all upstreams. They may be nil.
	Trackers *upstream.Trackers

	// TicketKeys come from another process and are used by the first compile. They may
	// be nil.
	TicketKeys certs.TicketKeys

	// TicketSecrets are the secrets of the tickets of all listeners. Nil: each listener has
	// keys of its own.
	TicketSecrets *tickets.Shared

	// GatewayLabels are the labels of this gateway in its fleet. They decide which resources
	// apply.
	GatewayLabels map[string]string

	// FileRoots are the directories below which files are read. Nil: no files are read.
	FileRoots fileroot.Roots

	// Now returns the time at which certificates and revocation lists must be valid.
	// Nil means time.Now.
	Now func() time.Time

	// Blocking runs f, which reads files and so may hang. It returns nil when f has
	// returned. If ctx ends first, it returns an error while f is still running. Nil: f
	// is called directly.
	Blocking func(ctx context.Context, f func()) error
}

// Compile builds the snapshot that the draft makes live after prev, from the gathered
// material. It reads no files and parses no keys. Faults and warnings go to bad. The
// snapshot must not be used if there are faults, or if material is missing: then the
// caller gathers the missing material and compiles again.
//
// Resources that are down in prev and that the draft does not put are retried, and
// may stay down. It is a fault if any other resource cannot be built.
func (c Compiler) Compile(prev *Snapshot, d *store.Draft, m *Material, bad *invalid.List) (next *Snapshot, missing Needs) {
	if bad.Len() == 0 && m.system == nil {
		if j, ok := c.compileChanged(prev, d, m); ok {
			bad.Merge(j.bad)
			return j.next, j.needs
		}
	}
	return c.compileAll(prev, d, m, bad)
}

// compileChanged compiles only what the draft can affect. ok is false if it found a fault
// or cannot decide.
func (c Compiler) compileChanged(prev *Snapshot, d *store.Draft, m *Material) (j *job, ok bool) {
	j = c.configure(&job{prev: prev, draft: d, state: d.State(), material: m, bad: new(invalid.List)})
	return j, j.compileChanged()
}

// compileAll is Compile without its shortcut: it checks every resource, so it finds
// every fault. Without faults, the result is the same.
func (c Compiler) compileAll(prev *Snapshot, d *store.Draft, m *Material, bad *invalid.List) (next *Snapshot, missing Needs) {
	j := c.configure(&job{prev: prev, draft: d, state: d.State(), material: m, bad: bad})
	j.compileAll()
	return j.next, j.needs
}

// Force is like Compile, but a resource that cannot be built is down instead of
// a fault.
func (c Compiler) Force(prev *Snapshot, d *store.Draft, m *Material) (next *Snapshot, missing Needs) {
	j := c.configure(&job{prev: prev, draft: d, state: d.State(), material: m, bad: new(invalid.List), lenient: true})
	j.compileAll()
	return j.next, j.needs
}

// Restore builds a snapshot of a stored state and reads the files for it. A resource
// that cannot be built is down.
func (c Compiler) Restore(ctx context.Context, state *store.State) *Snapshot {
	m := c.gatherState(ctx, state)
	j := c.configure(&job{prev: new(Snapshot), state: state, material: m, bad: new(invalid.List), lenient: true})
	j.compileAll()
	return j.next
}

// A job is one compile.
type job struct {
	prev    *Snapshot
	next    *Snapshot
	draft   *store.Draft // nil if the state is a stored one
	state   *store.State
	bad     *invalid.List
	lenient bool // a resource that cannot be built is down, not a fault

	material *Material // the material gathered for this compile
	needs    Needs     // the needs that material does not cover

	work    *worklist          // the resources to compile; nil: all
	reports map[string]*report // reports on the compiled resources, by reportKey

	// looked counts the resources that were compiled or checked, for tests.
	looked int

	// undecided says that only compileAll can determine which resource is at
	// fault.
	undecided bool

	observer    func(upstream.Event)
	filling     chan struct{}
	trackers    *upstream.Trackers
	descriptors *socket.Descriptors
	now         func() time.Time // nil: time.Now
	log         hclog.Logger
	labels      map[string]string // the labels of this gateway
	everywhere  bool              // compile resources of other gateways as if they applied here
	ticketKeys  certs.TicketKeys  // received from another process; may be nil
	tickets     *tickets.Shared   // may be nil
}

// configure sets the compiler's options in the job.
func (c Compiler) configure(j *job) *job {
	j.next, j.reports = &Snapshot{state: j.state}, map[string]*report{}
	j.log, j.observer = c.Logger, c.Observer
	j.filling, j.descriptors, j.now = c.Filling, c.Descriptors, c.Now
	j.trackers, j.ticketKeys, j.labels = c.Trackers, c.TicketKeys, c.GatewayLabels
	j.tickets = c.TicketSecrets
	if j.log == nil {
		j.log = hclog.NewNullLogger()
	}
	return j
}

// compileAll compiles every resource.
func (j *job) compileAll() {
	j.next.bundles = build(j, adminv1.Kind_KIND_TRUST_BUNDLE, j.prev.bundles, j.bundle, nil)
	j.next.certificates = build(j, adminv1.Kind_KIND_CERTIFICATE, j.prev.certificates, j.certificate, nil)
	j.next.upstreams = build(j, adminv1.Kind_KIND_UPSTREAM, j.prev.upstreams, j.upstream, nil)
	j.compileListeners(j.allRoutes())
	j.finish()
}

// finish completes the snapshot when every resource is compiled.
func (j *job) finish() {
	j.next.reports = ordered.Map[*report]{}
	if j.work != nil {
		j.next.reports = j.prev.reports
	}
	j.next.reports = j.next.reports.With(j.reports)
	j.warnOfWarm()
}

// A scope gathers the faults of one resource, by paths relative to it, and decides
// whether they fail the edit or take the resource down. It resolves references to
// other resources, and checks the settings that several kinds share.
type scope struct {
	invalid.List
	job      *job
	ref      store.Ref
	security []invalid.Warning

	// selector is the resource's selector of gateways. elsewhere says that it does not
	// select this gateway.
	selector  store.Selector
	elsewhere bool
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
	warnings []invalid.Warning // shown to the writer of the resource
	security []invalid.Warning // shown in the status as long as the object is live
}

// scope begins the checks of a resource. Unless the same message is already live, it
// rejects fields and values that this version does not know.
func (j *job) scope(r store.Resource) *scope {
	j.looked++
	s := &scope{job: j, ref: store.RefOf(r)}
	if j.lenient || s.written() || s.wasDown() {
		wellformed.Check(r.ProtoReflect(), "", nil, &s.List)
	}
	s.checkGateways(r)
	return s
}

// checkGateways parses the resource's selector of gateways. A resource with an invalid
// selector applies to no gateway.
func (s *scope) checkGateways(r store.Resource) {
	g, ok := r.(store.Selecting)
	if !ok || g.GetGateways() == "" {
		return
	}
	var err error
	if s.selector, err = store.ParseSelector(g.GetGateways()); err != nil {
		s.Add("gateways", "%v", err)
		return
	}
	s.elsewhere = !s.job.everywhere && !s.selector.Matches(s.job.labels)
}

// written reports whether the draft puts the resource.
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
func (s *scope) wasDown() bool { return s.job.prev.problem(s.ref) != "" }

// home returns the path that names the resource outside a request.
func (s *scope) home() invalid.Path {
	return invalid.Path(store.KindName(s.ref.Kind)).Key(s.ref.Name)
}

// warnSecurity warns of a setting that weakens security as long as it is live.
func (s *scope) warnSecurity(code string, p invalid.Path, format string, args ...any) {
	s.Warn(code, p, format, args...)
	s.security = append(s.security, invalid.Warning{Code: code, Field: p, Message: fmt.Sprintf(format, args...)})
}

// notes returns the warnings so far.
func (s *scope) notes() notes { return notes{s.Warnings(), s.security} }

// reuse repeats the notes of an object that stays live.
func (s *scope) reuse(n notes) {
	for _, w := range n.warnings {
		s.AddWarning(w)
	}
	s.security = n.security
}

// close ends the checks. It returns why the resource is down, or "" if it is up or if
// its faults fail the whole compile.
func (s *scope) close() (down string) {
	if s.elsewhere && (s.job.lenient || !s.written()) {
		s.job.report(&report{ref: s.ref}) // no problem of this gateway
		return s.reason()
	}
	if s.Len() > 0 && (s.job.lenient || s.wasDown() && !s.written()) {
		down = s.reason()
		s.job.report(&report{ref: s.ref, problem: down})
		return down
	}
	path := s.path()
	for _, f := range s.Faults() {
		s.job.bad.AddClass(f.Class, path.Join(string(f.Field)), "%s", f.Message)
	}
	if s.written() {
		for _, w := range s.Warnings() {
			w.Field = path.Join(string(w.Field))
			s.job.bad.AddWarning(w)
		}
		s.warnElsewhere(path)
	}
	r := &report{ref: s.ref}
	for _, w := range s.security {
		if s.elsewhere {
			break
		}
		r.security = append(r.security, invalid.Warning{Code: w.Code, Field: s.home().Join(string(w.Field)), Message: w.Message})
	}
	s.job.report(r)
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
	return store.SameMessage(inputs(a), inputs(b))
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
