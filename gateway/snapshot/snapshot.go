package snapshot

import (
	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Snapshot holds everything that is live, as of one revision. The zero value is
// empty: it is live before the first compile.
type Snapshot struct {
	state        *store.State
	bundles      map[string]*bundle
	certificates map[string]*certificate
	upstreams    map[string]*liveUpstream
	listeners    map[string]*Listener
	system       *certs.TrustBundle // the system's roots; nil if no resource uses them
	problems     []Problem
	standing     []invalid.Warning
}

// A Problem says why a resource is down.
type Problem struct {
	Ref    store.Ref
	Reason string
}

// State returns the desired state that the snapshot was compiled from.
func (s *Snapshot) State() *store.State {
	if s.state == nil {
		return new(store.State)
	}
	return s.state
}

// Problems returns the resources that are down and why, ordered by kind and name.
func (s *Snapshot) Problems() []Problem { return s.problems }

// Standing returns warnings about live settings that weaken security.
func (s *Snapshot) Standing() []invalid.Warning { return s.standing }

// Listeners returns the listeners in the order of their names. The caller must
// not modify the slice's elements.
func (s *Snapshot) Listeners() []*Listener {
	out := make([]*Listener, 0, len(s.listeners))
	for _, r := range s.State().List(adminv1.Kind_KIND_LISTENER) {
		out = append(out, s.listeners[r.GetName()])
	}
	return out
}

// Listener returns the listener of the name, or nil if it does not exist.
func (s *Snapshot) Listener(name string) *Listener { return s.listeners[name] }

// TCP returns the table of the TCP listener of the name, or nil if it does not exist
// or is down. It is safe for concurrent use and does not allocate.
func (s *Snapshot) TCP(name string) *l4.Table {
	if l := s.listeners[name]; l != nil {
		return l.tcp
	}
	return nil
}

// HTTP returns the table of the HTTP listener of the name, or nil if it does not
// exist or is down. It is safe for concurrent use and does not allocate.
func (s *Snapshot) HTTP(name string) *l7.Table {
	if l := s.listeners[name]; l != nil {
		return l.http
	}
	return nil
}

// An Upstream is one live upstream.
type Upstream struct {
	Name string
	Live *upstream.Upstream

	// Reason and Message say why it takes no traffic. They are unset if it does.
	Reason  adminv1.Reason
	Message string

	// Tracker tracks its connections, including those of earlier revisions.
	Tracker *upstream.Tracker

	// Latencies are those of its endpoints, including earlier revisions'.
	Latencies *upstream.Latencies

	// Unverified says that it accepts any certificate that its endpoints present.
	Unverified bool
}

func (u *liveUpstream) public() Upstream {
	why, message := u.reason()
	out := Upstream{Name: u.msg.GetName(), Reason: why, Message: message, Live: u.live, Tracker: u.tracker, Latencies: u.times}
	switch u.msg.GetTls().GetVerification() {
	case adminv1.Verification_VERIFICATION_REPORT_ONLY, adminv1.Verification_VERIFICATION_INSECURE_SKIP:
		out.Unverified = true
	}
	return out
}

// Upstream returns the upstream of the name; ok is false if it does not exist.
func (s *Snapshot) Upstream(name string) (Upstream, bool) {
	u := s.upstreams[name]
	if u == nil {
		return Upstream{}, false
	}
	return u.public(), true
}

// Upstreams returns the upstreams in the order of their names.
func (s *Snapshot) Upstreams() []Upstream {
	var out []Upstream
	for _, r := range s.State().List(adminv1.Kind_KIND_UPSTREAM) {
		out = append(out, s.upstreams[r.GetName()].public())
	}
	return out
}

// Start starts warm connections for every upstream that has them configured. It is
// called once the snapshot is live; until then nothing is dialed. Retire stops it.
func (s *Snapshot) Start() {
	for _, u := range s.upstreams {
		u.live.Start()
	}
}

// Retire closes the idle and the warm connections of every upstream that next does
// not use. Active connections and requests continue.
func (s *Snapshot) Retire(next *Snapshot) {
	for name, u := range s.upstreams {
		if n := next.upstreams[name]; n == nil || n.back != u.back {
			u.live.Retire()
			u.back.Retire()
		}
	}
}

// Cool closes the warm connections of every upstream and makes no new ones.
func (s *Snapshot) Cool() {
	for _, u := range s.upstreams {
		u.live.Retire()
	}
}

// Certificates returns the certificate of every Certificate that is up, by its
// name.
func (s *Snapshot) Certificates() map[string]*certs.Certificate {
	out := make(map[string]*certs.Certificate, len(s.certificates))
	for name, c := range s.certificates {
		if c.live != nil {
			out[name] = c.live
		}
	}
	return out
}

// TrustBundles returns every trust bundle that is up and not the system's, by
// its name.
func (s *Snapshot) TrustBundles() map[string]*certs.TrustBundle {
	out := make(map[string]*certs.TrustBundle, len(s.bundles))
	for name, b := range s.bundles {
		if b.trust != nil && b.msg.GetSystem() == nil {
			out[name] = b.trust
		}
	}
	return out
}
