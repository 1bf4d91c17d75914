package store

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Resource is a *adminv1.Listener, Route, Upstream, Certificate or
// TrustBundle.
type Resource interface {
	proto.Message
	GetName() string
	GetLabels() map[string]string
	GetEtag() string
	GetRevision() int64
}

// A Ref names a resource.
type Ref struct {
	Kind adminv1.Kind
	Name string
}

// String returns the reference for people: `trust bundle "corp"`.
func (r Ref) String() string { return KindName(r.Kind) + " " + strconv.Quote(r.Name) }

// Compare orders references by kind and name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Kind, o.Kind), cmp.Compare(r.Name, o.Name))
}

// RefOf returns the reference to r.
func RefOf(r Resource) Ref { return Ref{KindOf(r), r.GetName()} }

// Kinds returns every kind, each after the kinds that it may refer to.
func Kinds() []adminv1.Kind {
	return []adminv1.Kind{
		adminv1.Kind_KIND_TRUST_BUNDLE,
		adminv1.Kind_KIND_CERTIFICATE,
		adminv1.Kind_KIND_UPSTREAM,
		adminv1.Kind_KIND_LISTENER,
		adminv1.Kind_KIND_ROUTE,
	}
}

// ValidKind reports whether k is one of Kinds.
func ValidKind(k adminv1.Kind) bool { return slices.Contains(Kinds(), k) }

// KindName returns the kind for people: "trust bundle".
func KindName(k adminv1.Kind) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(k.String(), "KIND_"), "_", " "))
}

// KindOf returns the kind of r. It panics if r has no kind, which is a programming
// error.
func KindOf(r Resource) adminv1.Kind {
	switch r.(type) {
	case *adminv1.Listener:
		return adminv1.Kind_KIND_LISTENER
	case *adminv1.Route:
		return adminv1.Kind_KIND_ROUTE
	case *adminv1.Upstream:
		return adminv1.Kind_KIND_UPSTREAM
	case *adminv1.Certificate:
		return adminv1.Kind_KIND_CERTIFICATE
	case *adminv1.TrustBundle:
		return adminv1.Kind_KIND_TRUST_BUNDLE
	}
	panic(fmt.Sprintf("store: %T is not a resource", r))
}

// New returns an empty resource of the kind, which must be valid.
func New(k adminv1.Kind) Resource {
	switch k {
	case adminv1.Kind_KIND_LISTENER:
		return new(adminv1.Listener)
	case adminv1.Kind_KIND_ROUTE:
		return new(adminv1.Route)
	case adminv1.Kind_KIND_UPSTREAM:
		return new(adminv1.Upstream)
	case adminv1.Kind_KIND_CERTIFICATE:
		return new(adminv1.Certificate)
	case adminv1.Kind_KIND_TRUST_BUNDLE:
		return new(adminv1.TrustBundle)
	}
	panic(fmt.Sprintf("store: %v is not a kind", k))
}

// Wrap returns r in the message that can hold a resource of any kind.
func Wrap(r Resource) *adminv1.Resource {
	switch r := r.(type) {
	case *adminv1.Listener:
		return &adminv1.Resource{Kind: &adminv1.Resource_Listener{Listener: r}}
	case *adminv1.Route:
		return &adminv1.Resource{Kind: &adminv1.Resource_Route{Route: r}}
	case *adminv1.Upstream:
		return &adminv1.Resource{Kind: &adminv1.Resource_Upstream{Upstream: r}}
	case *adminv1.Certificate:
		return &adminv1.Resource{Kind: &adminv1.Resource_Certificate{Certificate: r}}
	case *adminv1.TrustBundle:
		return &adminv1.Resource{Kind: &adminv1.Resource_TrustBundle{TrustBundle: r}}
	}
	panic(fmt.Sprintf("store: %T is not a resource", r))
}

// setOutput sets the output-only fields of r, which the caller owns.
func setOutput(r Resource, etag string, revision int64) {
	switch r := r.(type) {
	case *adminv1.Listener:
		r.Etag, r.Revision = etag, revision
	case *adminv1.Route:
		r.Etag, r.Revision = etag, revision
	case *adminv1.Upstream:
		r.Etag, r.Revision = etag, revision
	case *adminv1.Certificate:
		r.Etag, r.Revision, r.Info = etag, revision, nil
	case *adminv1.TrustBundle:
		r.Etag, r.Revision, r.Info = etag, revision, nil
	}
}

// WithoutOutput returns a copy of r without its output-only fields.
func WithoutOutput(r Resource) Resource {
	c := proto.Clone(r).(Resource)
	setOutput(c, "", 0)
	return c
}

// SameContent reports whether two resources are equal except for output-only
// fields.
func SameContent(a, b Resource) bool { return SameMessage(WithoutOutput(a), WithoutOutput(b)) }

// SameMessage is proto.Equal, but fast for lists of ten thousand names: it compares the
// marshaled messages, while proto.Equal allocates for each element. Neither message may
// hold unknown fields, because their order would matter.
func SameMessage(a, b proto.Message) bool {
	return proto.Size(a) == proto.Size(b) && bytes.Equal(content(a), content(b))
}

// content returns the marshaled message.
func content(m proto.Message) []byte {
	out, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("store: a received message does not marshal: " + err.Error())
	}
	return out
}

// A useList is a list of references of one kind that a resource makes. It shares the list
// in the message: a listener may name 10,000 certificates.
type useList struct {
	kind  adminv1.Kind
	names []string
	field func(i int) invalid.Path // returns the path of the ith name within the resource
}

// uses returns every reference that r makes.
func uses(r Resource) []useList {
	var out []useList
	add := func(p invalid.Path, k adminv1.Kind, name string) {
		if name != "" {
			out = append(out, useList{k, []string{name}, func(int) invalid.Path { return p }})
		}
	}
	addAll := func(p invalid.Path, k adminv1.Kind, names []string) {
		if len(names) > 0 {
			out = append(out, useList{k, names, p.Index})
		}
	}
	switch r := r.(type) {
	case *adminv1.Listener:
		add("upstream", adminv1.Kind_KIND_UPSTREAM, r.GetUpstream())
		addAll("tls.certificates", adminv1.Kind_KIND_CERTIFICATE, r.GetTls().GetCertificates())
		addAll("tls.client_trust_bundles", adminv1.Kind_KIND_TRUST_BUNDLE, r.GetTls().GetClientTrustBundles())
		for i, policy := range r.GetTls().GetPolicies() {
			p := invalid.Path("tls.policies").Index(i)
			addAll(p.Field("certificates"), adminv1.Kind_KIND_CERTIFICATE, policy.GetCertificates())
			addAll(p.Field("client_trust_bundles"), adminv1.Kind_KIND_TRUST_BUNDLE, policy.GetClientTrustBundles())
		}
	case *adminv1.Route:
		addAll("listeners", adminv1.Kind_KIND_LISTENER, r.GetListeners())
		forward := useList{kind: adminv1.Kind_KIND_UPSTREAM, field: func(i int) invalid.Path { return invalid.Path("forward.upstreams").Index(i).Field("name") }}
		for _, u := range r.GetForward().GetUpstreams() {
			forward.names = append(forward.names, u.GetName())
		}
		out = append(out, forward)
	case *adminv1.Upstream:
		add("tls.certificate", adminv1.Kind_KIND_CERTIFICATE, r.GetTls().GetCertificate())
		addAll("tls.trust_bundles", adminv1.Kind_KIND_TRUST_BUNDLE, r.GetTls().GetTrustBundles())
		proxy := r.GetVia().GetHttpConnect().GetTls()
		add("via.http_connect.tls.certificate", adminv1.Kind_KIND_CERTIFICATE, proxy.GetCertificate())
		addAll("via.http_connect.tls.trust_bundles", adminv1.Kind_KIND_TRUST_BUNDLE, proxy.GetTrustBundles())
	}
	return out
}
