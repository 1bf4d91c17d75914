package admin

import (
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// cuts are the fields to remove from probe results, in order, until the results fit in
// a status. Fields that a new ProbeUpstream call would return go first, and those that
// explain the failure go last.
var cuts = []func(*adminv1.ProbeUpstreamResponse){
	each(func(r *adminv1.ProbeResult) { r.Chain = first(r.Chain, 1) }),
	each(func(r *adminv1.ProbeResult) {
		r.AcceptableCas = first(r.AcceptableCas, 5)
		for _, c := range r.Chain {
			c.Sans, c.Warnings, c.Findings = first(c.Sans, 5), nil, nil
		}
	}),
	each(func(r *adminv1.ProbeResult) { r.Chain, r.AcceptableCas, r.Timings = nil, nil, nil }),
	each(func(r *adminv1.ProbeResult) { r.Attempts = nil }),
	each(func(r *adminv1.ProbeResult) {
		r.Explanation = sanitize(r.Explanation, maxFault)
		if s := r.Suggestion; s != nil {
			s.Value, s.Text = sanitize(s.Value, maxFault), sanitize(s.Text, maxFault)
		}
	}),
	func(a *adminv1.ProbeUpstreamResponse) { a.Results = first(a.Results, 8) },
	func(a *adminv1.ProbeUpstreamResponse) { a.Results = first(a.Results, 2) },
}

// maxDetails bounds how many upstreams' results can fit.
const maxDetails = 64

func each(cut func(*adminv1.ProbeResult)) func(*adminv1.ProbeUpstreamResponse) {
	return func(a *adminv1.ProbeUpstreamResponse) {
		for _, r := range a.Results {
			cut(r)
		}
	}
}

func first[T any](s []T, n int) []T { return s[:min(len(s), n)] }

// withDetails adds the details that fit: it drops fields first, then endpoints, then
// whole details.
func withDetails(st *status.Status, details []any) *status.Status {
	var answers []*adminv1.ProbeUpstreamResponse
	for _, d := range first(details, maxDetails) {
		if a, ok := d.(*adminv1.ProbeUpstreamResponse); ok {
			answers = append(answers, proto.Clone(a).(*adminv1.ProbeUpstreamResponse))
		}
	}
	full := withAnswers(st, answers)
	for _, cut := range cuts {
		if wireSize(full) <= maxStatus {
			return full
		}
		for _, a := range answers {
			cut(a)
		}
		full = withAnswers(st, answers)
	}
	for wireSize(full) > maxStatus && len(answers) > 0 {
		answers = answers[:len(answers)*7/8]
		full = withAnswers(st, answers)
	}
	return full
}

func withAnswers(st *status.Status, answers []*adminv1.ProbeUpstreamResponse) *status.Status {
	details := make([]protoadapt.MessageV1, len(answers))
	for i, a := range answers {
		details[i] = a
	}
	full, err := st.WithDetails(details...)
	if err != nil {
		return st // the code and the message matter most
	}
	return full
}
