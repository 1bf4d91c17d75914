package admin

import (
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// cuts are what is left out of the answers of probes, one after the other,
// until they fit in a status: what ProbeUpstream would tell again goes first,
// and what tells why goes last.
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
		r.Explanation = tell(r.Explanation, maxFault)
		if s := r.Suggestion; s != nil {
			s.Value, s.Text = tell(s.Value, maxFault), tell(s.Text, maxFault)
		}
	}),
	func(a *adminv1.ProbeUpstreamResponse) { a.Results = first(a.Results, 8) },
	func(a *adminv1.ProbeUpstreamResponse) { a.Results = first(a.Results, 2) },
}

// maxAnswers is how many answers there is ever room for.
const maxAnswers = 64

func each(cut func(*adminv1.ProbeResult)) func(*adminv1.ProbeUpstreamResponse) {
	return func(a *adminv1.ProbeUpstreamResponse) {
		for _, r := range a.Results {
			cut(r)
		}
	}
}

func first[T any](s []T, n int) []T { return s[:min(len(s), n)] }

// withDetails adds as much of the details as fits: fewer fields, then fewer
// endpoints, then fewer details.
func withDetails(st *status.Status, details []any) *status.Status {
	var answers []*adminv1.ProbeUpstreamResponse
	for _, d := range first(details, maxAnswers) {
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
