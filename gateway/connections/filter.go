package connections

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// numberBase is the numeric base of IDs.
const numberBase = 36

// A set holds the values that a field accepts. An empty set accepts all.
type set[T comparable] map[T]bool

func setOf[T comparable](values []T) set[T] {
	s := set[T]{}
	for _, v := range values {
		s[v] = true
	}
	return s
}

func (s set[T]) accepts(v T) bool { return len(s) == 0 || s[v] }

// A filter is a parsed ConnectionFilter.
type filter struct {
	now time.Time

	ids                                     set[uint64]
	listeners, routes, upstreams, endpoints set[string]
	addresses                               []netip.Prefix
	identities, fingerprints                set[string]
	minRevision, maxRevision                int64 // 0: no limit
	minAge, maxAge                          *time.Duration
}

// parse returns the filter. The error is an *invalid.Error.
func parse(f *adminv1.ConnectionFilter) (*filter, error) {
	var bad invalid.List
	p := invalid.Path("connection_filter")
	out := &filter{
		now: time.Now(), ids: set[uint64]{}, identities: set[string]{}, fingerprints: set[string]{},
		listeners: setOf(f.GetListeners()), routes: setOf(f.GetRoutes()), upstreams: setOf(f.GetUpstreams()), endpoints: setOf(f.GetEndpoints()),
		minRevision: f.GetMinRevision(), maxRevision: f.GetMaxRevision(),
	}
	for i, id := range f.GetIds() {
		n, err := strconv.ParseUint(id, numberBase, 64)
		if err != nil {
			bad.Add(p.Field("ids").Index(i), "is not the ID of a connection")
		}
		out.ids[n] = true
	}
	for i, text := range f.GetClientAddresses() {
		prefix, err := parsePrefix(text)
		if err != nil {
			bad.Add(p.Field("client_addresses").Index(i), "must be an IP address or a prefix such as 10.0.0.0/8")
		}
		out.addresses = append(out.addresses, prefix)
	}
	for i, text := range f.GetClientIdentities() {
		name, err := parseIdentity(text)
		if err != nil {
			bad.Add(p.Field("client_identities").Index(i), "%v", err)
		}
		out.identities[name] = true
	}
	for i, text := range f.GetSha256Fingerprints() {
		fingerprint, ok := certs.ParseFingerprint(text)
		if !ok {
			bad.Add(p.Field("sha256_fingerprints").Index(i), "must be a SHA-256 in hexadecimal: 64 digits, with or without colons")
		}
		out.fingerprints[fingerprint] = true
	}
	if out.minRevision < 0 || out.maxRevision < 0 {
		bad.Add(p, "holds a negative revision")
	}
	out.minAge, out.maxAge = age(p.Field("min_age"), f.GetMinAge(), &bad), age(p.Field("max_age"), f.GetMaxAge(), &bad)
	return out, bad.Err()
}

func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err
}

// commonName is the prefix of an identity that is the common name of a subject.
const commonName = "CN="

// parseIdentity returns an identity in the form of identityNames.
func parseIdentity(text string) (string, error) {
	if strings.HasPrefix(text, commonName) {
		return text, nil
	}
	san, err := certs.ParseSAN(text)
	return san.String(), err
}

func age(p invalid.Path, d *durationpb.Duration, bad *invalid.List) *time.Duration {
	if d == nil {
		return nil
	}
	if d.CheckValid() != nil || d.AsDuration() < 0 {
		bad.Add(p, "must be a duration of 0 or more, such as \"90s\"")
		return nil
	}
	out := d.AsDuration()
	return &out
}

// matches reports whether the filter selects a connection.
func (f *filter) matches(c *live.Connection) bool {
	if !f.ids.accepts(c.ID) || !f.listeners.accepts(c.Listener) || !f.routes.accepts(c.Route) ||
		!f.upstreams.accepts(c.Upstream) || !f.endpoints.accepts(c.Endpoint) {
		return false
	}
	if c.Revision < f.minRevision || f.maxRevision > 0 && (c.Revision == 0 || c.Revision > f.maxRevision) {
		return false
	}
	if open := f.now.Sub(c.Began); f.minAge != nil && open < *f.minAge || f.maxAge != nil && open > *f.maxAge {
		return false
	}
	return f.matchesAddress(c) && f.matchesIdentity(c) && f.matchesFingerprint(c)
}

func (f *filter) matchesAddress(c *live.Connection) bool {
	return len(f.addresses) == 0 || slices.ContainsFunc(f.addresses, func(p netip.Prefix) bool { return p.Contains(c.Address) })
}

func (f *filter) matchesIdentity(c *live.Connection) bool {
	if len(f.identities) == 0 {
		return true
	}
	leaf := c.Client.Leaf()
	if leaf == nil {
		return false
	}
	if f.identities[commonName+leaf.Subject.CommonName] {
		return true
	}
	return slices.ContainsFunc(certs.SANsOf(leaf), func(s certs.SAN) bool { return f.identities[s.String()] })
}

func (f *filter) matchesFingerprint(c *live.Connection) bool {
	if len(f.fingerprints) == 0 || c.Server.Certificate != "" && f.fingerprints[c.Server.Certificate] {
		return true
	}
	leaf := c.Client.Leaf()
	return leaf != nil && f.fingerprints[certs.FingerprintOf(leaf)]
}
