package snapshot

import (
	"maps"
	"slices"
	"strings"

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
