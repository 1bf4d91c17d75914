package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Snapshot holds all live objects of one revision. The zero value is empty, and
// is live before the first compile.
type Snapshot struct {
	state        *store.State
	bundles      ordered.Map[*bundle]
	certificates ordered.Map[*certificate]
	upstreams    ordered.Map[*liveUpstream]
	routes       ordered.Map[*liveRoute]
	listeners    ordered.Map[*Listener]
	system       *certs.TrustBundle // the system's roots; nil if no resource uses them
	reports      ordered.Map[*report]
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
func (s *Snapshot) Problems() []Problem {
	var out []Problem
	for _, r := range s.reports.All() {
		if r.problem != "" {
			out = append(out, Problem{r.ref, r.problem})
		}
	}
	return out
}

// SecurityWarnings returns warnings about live settings that weaken security.
func (s *Snapshot) SecurityWarnings() []invalid.Warning {
	var out []invalid.Warning
	for _, r := range s.reports.All() {
		out = append(out, r.security...)
	}
	return out
}

// Listeners returns the listeners of this gateway in the order of their names. The
// caller must not modify the slice's elements.
func (s *Snapshot) Listeners() []*Listener {
	return slices.DeleteFunc(s.listeners.Values(), func(l *Listener) bool { return l.elsewhere })
}

// ChangedListeners returns the names of the listeners that differ between prev and s,
// in order.
func (s *Snapshot) ChangedListeners(prev *Snapshot) []string {
	var out []string
	for name := range ordered.Differ(prev.listeners, s.listeners) {
		out = append(out, name)
	}
	return out
}

// Listener returns the listener of the name, or nil if it does not exist or applies only
// to other gateways.
func (s *Snapshot) Listener(name string) *Listener {
	if l := s.listeners.Get(name); l != nil && !l.elsewhere {
		return l
	}
	return nil
}

// TCP returns the table of the TCP listener of the name, or nil if it does not exist
// or is down. It is safe for concurrent use and does not allocate.
func (s *Snapshot) TCP(name string) *l4.Table {
	if l := s.listeners.Get(name); l != nil {
		return l.tcp
	}
	return nil
}

// HTTP returns the table of the HTTP listener of the name, or nil if it does not
// exist or is down. It is safe for concurrent use and does not allocate.
func (s *Snapshot) HTTP(name string) *l7.Table {
	if l := s.listeners.Get(name); l != nil {
		return l.http
	}
	return nil
}

// An Upstream is one live upstream.
type Upstream struct {
	Name string
	Live *upstream.Upstream

	// Reason and Message say why the upstream takes no traffic. They are unset if
	// it does.
	Reason  adminv1.Reason
	Message string

	// Tracker tracks the upstream's connections, including connections of earlier
	// revisions.
	Tracker *upstream.Tracker

	// Latencies are the latencies of the upstream's endpoints, including those of
	// earlier revisions.
	Latencies *upstream.Latencies

	// Unverified says that the upstream accepts any certificate from its
	// endpoints.
	Unverified bool

	of *liveUpstream
}

// Identity identifies the settings and the certificate of the upstream, in a form that
// another process can compare. It is empty while the upstream is down.
func (u Upstream) Identity() string {
	if u.of.down != "" {
		return ""
	}
	hash := sha256.New()
	text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(inputs(u.of.msg)) // fails only on invalid UTF-8, which was rejected before
	hash.Write(text)
	if c := u.of.uses.certificate; c != nil {
		io.WriteString(hash, c.Fingerprint())
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func (u *liveUpstream) public() Upstream {
	reason, message := u.reason()
	out := Upstream{of: u, Name: u.msg.GetName(), Reason: reason, Message: message, Live: u.live, Tracker: u.tracker, Latencies: u.times}
	switch u.msg.GetTls().GetVerification() {
	case adminv1.Verification_VERIFICATION_REPORT_ONLY, adminv1.Verification_VERIFICATION_INSECURE_SKIP:
		out.Unverified = true
	}
	return out
}

// Upstream returns the upstream of the name; ok is false if it does not exist or applies
// only to other gateways.
func (s *Snapshot) Upstream(name string) (Upstream, bool) {
	u := s.upstreams.Get(name)
	if u == nil {
		return Upstream{}, false
	}
	return u.public(), true
}

// Upstreams returns the upstreams in the order of their names.
func (s *Snapshot) Upstreams() []Upstream {
	var out []Upstream
	for _, u := range s.upstreams.All() {
		out = append(out, u.public())
	}
	return out
}

// Require puts the requirements of the upstreams that prev does not use in force, for
// handshakes and for open connections. It is called when the snapshot becomes live
// after prev, before traffic sees it.
func (s *Snapshot) Require(prev *Snapshot) {
	for _, u := range ordered.Differ(prev.upstreams, s.upstreams) {
		if u[1] != nil {
			u[1].inForce()
		}
	}
}

// Start starts the configured health checks, lookups and warm connections of every
// upstream that prev does not use. It is called once the snapshot is live after prev.
// Nothing is dialed before that. Retire ends these activities.
func (s *Snapshot) Start(prev *Snapshot) {
	for _, u := range ordered.Differ(prev.upstreams, s.upstreams) {
		if u[1] != nil {
			u[1].live.Start()
		}
	}
}

// Retire closes the idle and the warm connections of every upstream that next does
// not use. Active connections and requests continue.
func (s *Snapshot) Retire(next *Snapshot) {
	for _, u := range ordered.Differ(s.upstreams, next.upstreams) {
		if u[0] != nil && (u[1] == nil || u[1].back != u[0].back) {
			u[0].live.Retire()
			u[0].back.Retire()
		}
	}
}

// Replaced returns the upstreams whose live object next does not use.
func (s *Snapshot) Replaced(next *Snapshot) []Upstream {
	var out []Upstream
	for _, u := range ordered.Differ(s.upstreams, next.upstreams) {
		if u[0] != nil && !u[0].sameLive(u[1]) {
			out = append(out, u[0].public())
		}
	}
	return out
}

// CloseWarm closes the warm connections of every upstream and stops opening new
// ones.
func (s *Snapshot) CloseWarm() {
	for _, u := range s.upstreams.All() {
		u.live.Retire()
	}
}

// Certificates yields the name and the certificate of every Certificate that is up.
func (s *Snapshot) Certificates() iter.Seq2[string, *certs.Certificate] {
	return func(yield func(string, *certs.Certificate) bool) {
		for name, c := range s.certificates.All() {
			if c.live != nil && !yield(name, c.live) {
				return
			}
		}
	}
}

// Certificate returns the certificate of the name, or nil if it is not up.
func (s *Snapshot) Certificate(name string) *certs.Certificate {
	if c := s.certificates.Get(name); c != nil {
		return c.live
	}
	return nil
}

// TrustBundle returns the trust of the named bundle. It returns nil if the bundle is not
// up, or is the system's.
func (s *Snapshot) TrustBundle(name string) *certs.TrustBundle {
	if b := s.bundles.Get(name); b != nil && b.msg.GetSystem() == nil {
		return b.trust
	}
	return nil
}

// ChangedMaterial returns the certificates and trust bundles that differ between prev and
// s. Its cost is proportional to the difference.
func (s *Snapshot) ChangedMaterial(prev *Snapshot) []store.Ref {
	var out []store.Ref
	for name := range ordered.Differ(prev.bundles, s.bundles) {
		out = append(out, store.Ref{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: name})
	}
	for name := range ordered.Differ(prev.certificates, s.certificates) {
		out = append(out, store.Ref{Kind: adminv1.Kind_KIND_CERTIFICATE, Name: name})
	}
	return out
}

// TrustBundles yields the name and the trust of every bundle that is up, except the
// system's.
func (s *Snapshot) TrustBundles() iter.Seq2[string, *certs.TrustBundle] {
	return func(yield func(string, *certs.TrustBundle) bool) {
		for name, b := range s.bundles.All() {
			if b.trust != nil && b.msg.GetSystem() == nil && !yield(name, b.trust) {
				return
			}
		}
	}
}
