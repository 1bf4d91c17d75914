package admin

import (
	"context"
	"errors"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s adminService) Apply(ctx context.Context, req *adminv1.ApplyRequest) (*adminv1.ApplyResponse, error) {
	var bad invalid.List
	edit := editOf(req, &bad)
	if bad.Len() > 0 {
		// The edit will not be applied, but its valid parts are checked, so that one
		// response has every fault.
		edit.DryRun = true
	}
	_, change, err := s.write(ctx, edit, req.GetOptions())
	if err := join(bad.Faults(), err); err != nil {
		return nil, err
	}
	return &adminv1.ApplyResponse{Change: change}, nil
}

// editOf returns the edit that req describes. Malformed parts are left out and
// reported to bad.
func editOf(req *adminv1.ApplyRequest, bad *invalid.List) store.Edit {
	e := store.Edit{ExpectedRevision: req.ExpectedRevision}
	if p := req.GetPrune(); p != nil {
		labels, err := store.ParseSelector(p.GetLabelSelector())
		if err != nil {
			bad.Add("prune.label_selector", "%v", err)
		}
		e.Prune = &store.Prune{Kinds: p.GetKinds(), Labels: labels}
	}
	for i, res := range req.GetResources() {
		at := invalid.Path("resources").Index(i)
		field, r := resourceIn(res)
		if r == nil {
			bad.Add(at, "must hold one of listener, route, upstream, certificate and trust_bundle")
			continue
		}
		e.Puts = append(e.Puts, store.Put{Path: at.Field(field), Resource: r})
	}
	for i, d := range req.GetDeletes() {
		at := invalid.Path("deletes").Index(i)
		e.Deletes = append(e.Deletes, store.Delete{Path: at, Kind: d.GetKind(), Name: d.GetName(), Etag: d.GetEtag()})
	}
	return e
}

// join merges the faults found here with the faults that the gateway found. It
// reports each field's fault once.
func join(faults []invalid.Fault, err error) error {
	var more *invalid.Error
	switch {
	case len(faults) == 0:
		return err
	case errors.As(err, &more):
		here := map[invalid.Path]bool{}
		for _, f := range faults {
			here[f.Field] = true
		}
		for _, f := range more.Faults {
			if !here[f.Field] {
				faults = append(faults, f)
			}
		}
	case err != nil:
		return err
	}
	return &invalid.Error{Faults: faults}
}

// resourceIn returns the resource in res and the name of its field, or nil if res is
// empty.
func resourceIn(res *adminv1.Resource) (field string, r store.Resource) {
	switch k := res.GetKind().(type) {
	case *adminv1.Resource_Listener:
		return "listener", k.Listener
	case *adminv1.Resource_Route:
		return "route", k.Route
	case *adminv1.Resource_Upstream:
		return "upstream", k.Upstream
	case *adminv1.Resource_Certificate:
		return "certificate", k.Certificate
	case *adminv1.Resource_TrustBundle:
		return "trust_bundle", k.TrustBundle
	}
	return "", nil
}
