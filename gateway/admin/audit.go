package admin

import (
	"cmp"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/drawbridge-gateway/drawbridge/gateway/audit"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// audit records a call, unless it only read something or the gateway has recorded it.
func (c *call) audit(req any, st *status.Status, right adminv1.Right) {
	denied := st.Code() == codes.PermissionDenied || st.Code() == codes.Unauthenticated || right == adminv1.Right_RIGHT_UNSPECIFIED
	probe := c.method == adminv1.DiagnosticsService_ProbeUpstream_FullMethodName
	if c.s.audit == nil || c.written || right == adminv1.Right_RIGHT_READ && !denied && !probe {
		return
	}
	r := RecordOf(originOf(c.ctx))
	r.Method, r.Resources = sanitize(c.method, maxField), c.resources
	r.Result, r.Error = outcome(st)
	if w, ok := req.(writeRequest); ok {
		r.DryRun, r.Comment = w.GetOptions().GetDryRun(), sanitize(w.GetOptions().GetComment(), maxMessageText)
	}
	switch req := req.(type) {
	case *adminv1.ProbeUpstreamRequest:
		r.Resources = upstreamNamed(cmp.Or(req.GetName(), req.GetUpstream().GetName()))
	case interface{ GetUpstream() string }:
		r.Resources = upstreamNamed(req.GetUpstream())
	}
	c.s.audit.Add(r)
}

func upstreamNamed(name string) []string {
	return []string{resourceText(store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: name})}
}

// RecordOf returns a record of something that an origin does.
func RecordOf(o store.Origin) audit.Record {
	r := audit.Record{Principal: o.Principal, Address: o.Address, Transport: strings.TrimPrefix(o.Transport.String(), "TRANSPORT_"), Method: o.Method}
	if o.Principal == "" {
		r.Principal, r.Transport = "gateway", "INTERNAL"
	}
	return r
}

// ResourcesOf names the resources of an edit, for a record.
func ResourcesOf(e store.Edit) []string {
	var names []string
	for _, p := range e.Puts {
		names = append(names, resourceText(store.Ref{Kind: store.KindOf(p.Resource), Name: p.Resource.GetName()}))
	}
	for _, d := range e.Deletes {
		names = append(names, resourceText(store.Ref{Kind: d.Kind, Name: d.Name}))
	}
	return names
}

// resourceText names a resource. The name is what a caller sent, and may be anything.
func resourceText(ref store.Ref) string {
	return store.KindName(ref.Kind) + " " + sanitize(ref.Name, maxField)
}

// Outcome returns the result and the error of a record for an error of the gateway, as a
// caller of the API sees it.
func Outcome(err error) (result, text string) {
	st, _ := statusOf(err)
	return outcome(st)
}

func outcome(st *status.Status) (result, text string) {
	if st.Code() == codes.OK {
		return "OK", ""
	}
	return code.Code(st.Code()).String(), sanitize(st.Message(), maxMessageText)
}
