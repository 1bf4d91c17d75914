package snapshot

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Reason returns the API's form of a reason: REASON_UNSPECIFIED for "".
func Reason(r certs.Reason) adminv1.Reason {
	if r == "" {
		return adminv1.Reason_REASON_UNSPECIFIED
	}
	if v, ok := adminv1.Reason_value["REASON_"+strings.ToUpper(string(r))]; ok {
		return adminv1.Reason(v)
	}
	return adminv1.Reason_REASON_OTHER
}

// EndpointAddress returns an endpoint's address in the API's form.
func EndpointAddress(e upstream.EndpointStatus) string {
	if e.Network == "unix" {
		return "unix:" + e.Address
	}
	return e.Address
}

// FailureCounts returns the API's form of counts by reason, in the order of reasons.
func FailureCounts(counts map[certs.Reason]uint64) []*adminv1.FailureCount {
	var out []*adminv1.FailureCount
	for _, r := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, &adminv1.FailureCount{Reason: Reason(r), Count: int64(counts[r])})
	}
	return out
}

// AnchorUses returns the uses of trust anchors in the API's form.
func AnchorUses(uses []certs.AnchorUse) []*adminv1.AnchorUse {
	var out []*adminv1.AnchorUse
	for _, u := range uses {
		out = append(out, &adminv1.AnchorUse{
			Subject: u.Subject(), Sha256Fingerprint: certs.FingerprintOf(u.Anchor),
			LastVerifiedTime: timestamppb.New(u.Last), VerifiedCount: int64(u.Verified),
		})
	}
	return out
}

// A Population stands for the clients that one TLS policy of a listener
// verifies.
type Population struct {
	Hosts  []string // the policy's hosts; nil for the base settings
	policy *certs.Server
}

// VerifiedBy returns the trust anchors that verified the clients, the latest first.
func (p Population) VerifiedBy() []certs.AnchorUse { return certs.AnchorUses(p.policy.Anchors()) }

// Trusts reports whether b may verify the clients.
func (p Population) Trusts(b *certs.TrustBundle) bool { return p.policy.Trusts(b) }

// Populations returns the populations of the listener's clients. The population of
// the base settings comes first.
func (l *Listener) Populations() []Population {
	var out []Population
	for _, p := range l.uses.policies {
		if p.server != nil && len(p.trust) > 0 {
			out = append(out, Population{p.hosts, p.server})
		}
	}
	return out
}
