package admin

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/audit"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// audit records a call, unless the call only read, or the gateway has recorded it.
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
	case *adminv1.CloseConnectionsRequest:
		r.Resources, r.Selection = resourcesOfFilter(req.GetConnectionFilter()), selection(req.GetConnectionFilter())
		if req.GetAll() {
			r.Selection = "all"
		}
	case *adminv1.DrainConnectionsRequest:
		f := &adminv1.ConnectionFilter{
			Upstreams: slices.DeleteFunc([]string{req.GetUpstream()}, func(name string) bool { return name == "" }),
			Listeners: req.GetListeners(), ClientIdentities: req.GetClientIdentities(),
			Sha256Fingerprints: slices.DeleteFunc([]string{req.GetSha256Fingerprint()}, func(text string) bool { return text == "" }),
		}
		r.Resources, r.Selection = resourcesOfFilter(f), selection(f)
	case interface{ GetUpstream() string }:
		r.Resources = upstreamNamed(req.GetUpstream())
	}
	c.s.audit.Add(r)
}

// resourcesOfFilter names the resources that a filter names.
func resourcesOfFilter(f *adminv1.ConnectionFilter) []string {
	var names []string
	for _, of := range []struct {
		kind  adminv1.Kind
		names []string
	}{
		{adminv1.Kind_KIND_LISTENER, f.GetListeners()}, {adminv1.Kind_KIND_ROUTE, f.GetRoutes()}, {adminv1.Kind_KIND_UPSTREAM, f.GetUpstreams()},
	} {
		for _, name := range of.names {
			names = append(names, resourceText(store.Ref{Kind: of.kind, Name: name}))
		}
	}
	return names
}

// selection describes a filter in the names of its fields: "listeners=[db] max_age=60s".
func selection(f *adminv1.ConnectionFilter) string {
	var parts []string
	m := f.ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		if !m.Has(fd) {
			continue
		}
		value := m.Get(fd)
		text := value.String()
		switch {
		case fd.IsList():
			var values []string
			for i := range value.List().Len() {
				values = append(values, value.List().Get(i).String())
			}
			text = "[" + strings.Join(values, ", ") + "]"
		case fd.Message() != nil:
			text = value.Message().Interface().(*durationpb.Duration).AsDuration().String()
		}
		parts = append(parts, string(fd.Name())+"="+text)
	}
	return sanitize(strings.Join(parts, " "), maxMessageText)
}

func upstreamNamed(name string) []string {
	return []string{resourceText(store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: name})}
}

// RecordOf returns a record with the caller of an action.
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

// resourceText names a resource. A caller sent the name, so it may be any text.
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
