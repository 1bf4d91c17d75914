package admin

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// adminService implements AdminService. Its methods return the faults of a request as
// an *invalid.Error, which the interceptors turn into a status.
type adminService struct {
	*Server
	// The "Unsafe" type makes a missing method a compile error. With any other type, a
	// missing method would return UNIMPLEMENTED.
	adminv1.UnsafeAdminServiceServer
}

// put writes r, the request's field at path.
func put[R store.Resource](ctx context.Context, s adminService, path invalid.Path, r R, o *adminv1.WriteOptions) (*adminv1.Change, R, error) {
	var shown R
	res, change, err := s.write(ctx, store.Edit{Puts: []store.Put{{Path: path, Resource: r}}}, o)
	if err != nil {
		return nil, shown, err
	}
	if now := res.State.Get(store.KindOf(r), r.GetName()); now != nil {
		shown = res.Present(now).(R)
	}
	return change, shown, nil
}

// get returns the resource of type R with the name.
func get[R store.Resource](s adminService, name string) (R, error) {
	var none R
	kind := store.KindOf(none)
	r := s.gateway.State().Get(kind, name)
	if r == nil {
		return none, invalid.Errorf(invalid.NotFound, "name", "there is no %s %.80q", store.KindName(kind), name)
	}
	return s.gateway.Present(r).(R), nil
}

// list returns a page of resources of type R, and the token of the next page; "" on the
// last page.
func list[R store.Resource](s adminService, req listRequest) ([]R, string, error) {
	var none R
	kind := store.KindOf(none)
	return pageOf(s.gateway.State().List(kind), kind.String(), req, func(r store.Resource) (R, bool) {
		return s.gateway.Present(r).(R), true
	})
}

// remove deletes a resource.
func (s adminService) remove(ctx context.Context, k adminv1.Kind, name, etag string, o *adminv1.WriteOptions) (*adminv1.Change, error) {
	_, change, err := s.write(ctx, store.Edit{Deletes: []store.Delete{{Kind: k, Name: name, Etag: etag}}}, o)
	return change, err
}

// write applies an edit with the options o.
func (s adminService) write(ctx context.Context, e store.Edit, o *adminv1.WriteOptions) (*store.Result, *adminv1.Change, error) {
	if !e.DryRun { // DryRun is already set if the request is malformed; then no probe is needed
		e.RequireProbe = o.GetRequireProbe()
	}
	e.DryRun, e.Comment, e.CreateOnly = e.DryRun || o.GetDryRun(), o.GetComment(), o.GetCreateOnly()
	e.Origin, e.Impact = originOf(ctx), true
	if err := s.mayWrite(ctx, &e); err != nil {
		return nil, nil, err
	}
	var bad invalid.List
	within := s.waitFor(o, &bad)
	e.Rollout = s.rollout(o, &bad)
	if e.ConfirmWithin = confirmWithin.parse(o.GetConfirmWithin(), &bad); bad.Len() > 0 {
		e.DryRun, e.RequireProbe = true, adminv1.RequireProbe_REQUIRE_PROBE_UNSPECIFIED // find the other faults too
	}
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.resources, c.written = ResourcesOf(e), !e.DryRun
	}
	res, err := s.gateway.Apply(ctx, e)
	if err := join(bad.Faults(), err); err != nil {
		return nil, nil, err
	}
	change := &adminv1.Change{Revision: res.Revision, Changes: changesOf(res.Changes), Impact: res.Impact, Pending: res.Pending}
	for _, w := range first(res.Warnings, maxWarnings) {
		change.Warnings = append(change.Warnings, &adminv1.Warning{
			Field: sanitize(string(w.Field), maxField), Message: sanitize(w.Message, maxMessageText),
			Code: WarningCode(w.Code), Finding: adminv1.CertificateFinding(adminv1.CertificateFinding_value["CERTIFICATE_FINDING_"+w.Finding]),
		})
	}
	if more := len(res.Warnings) - maxWarnings; more > 0 {
		change.Warnings = append(change.Warnings, &adminv1.Warning{
			Code: adminv1.WarningCode_WARNING_CODE_MORE, Message: fmt.Sprintf("and %d more warnings", more),
		})
	}
	if e.DryRun {
		s.addFields(change, res)
	}
	if e.Rollout != nil && res.Pending.GetRollout() != nil && res.Pending.GetRevision() == res.Revision {
		if err := s.awaitRollout(ctx, change); err != nil {
			return nil, nil, err
		}
	}
	if within > 0 {
		s.await(ctx, change, within)
	}
	return res, change, nil
}

// originOf returns the caller of a call, and its transport.
func originOf(ctx context.Context) store.Origin {
	from, _ := callerOf(ctx)
	method, _ := grpc.Method(ctx)
	return store.Origin{Principal: from.Principal, Address: from.address, Transport: from.Transport, Method: method}
}

// maxWarnings bounds how many warnings are listed.
const maxWarnings = 1000

// WarningCode returns the API's form of the code of a warning.
func WarningCode(code string) adminv1.WarningCode {
	return adminv1.WarningCode(adminv1.WarningCode_value["WARNING_CODE_"+code])
}

func changesOf(changes []store.Change) []*adminv1.ResourceChange {
	out := make([]*adminv1.ResourceChange, len(changes))
	for i, c := range changes {
		out[i] = &adminv1.ResourceChange{Kind: c.Kind, Name: c.Name, Action: c.Action}
	}
	return out
}
