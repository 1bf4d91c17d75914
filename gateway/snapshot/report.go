package snapshot

import (
	"slices"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A report holds the status of a resource.
type report struct {
	ref      store.Ref
	problem  string // why the resource is down; "" if it is up
	security []invalid.Warning
}

// reportOrder orders the reports of a snapshot.
var reportOrder = []adminv1.Kind{
	adminv1.Kind_KIND_TRUST_BUNDLE, adminv1.Kind_KIND_CERTIFICATE, adminv1.Kind_KIND_UPSTREAM, adminv1.Kind_KIND_ROUTE, adminv1.Kind_KIND_LISTENER,
}

// reportKey returns the key that orders reports by kind and name.
func reportKey(ref store.Ref) string {
	return strconv.Itoa(slices.Index(reportOrder, ref.Kind)) + "/" + ref.Name
}

// problem returns why the resource is down, or "" if it is up or does not exist.
func (s *Snapshot) problem(ref store.Ref) string {
	if s.reports.Len() == 0 {
		return ""
	}
	if r := s.reports.Get(reportKey(ref)); r != nil {
		return r.problem
	}
	return ""
}

// report replaces the report of a resource. It does not keep an empty report.
func (j *job) report(r *report) {
	if r.problem == "" && len(r.security) == 0 {
		if j.work != nil && j.prev.reports.Len() > 0 {
			j.reports[reportKey(r.ref)] = nil
		}
		return
	}
	j.reports[reportKey(r.ref)] = r
}
