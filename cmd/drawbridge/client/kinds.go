package client

import (
	"context"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// GetResource reads one resource.
func (cl *Client) GetResource(ctx context.Context, kind adminv1.Kind, name string) (*adminv1.Resource, error) {
	switch kind {
	case adminv1.Kind_KIND_LISTENER:
		a, err := cl.GetListener(ctx, &adminv1.GetListenerRequest{Name: name})
		return store.Wrap(a), err
	case adminv1.Kind_KIND_ROUTE:
		a, err := cl.GetRoute(ctx, &adminv1.GetRouteRequest{Name: name})
		return store.Wrap(a), err
	case adminv1.Kind_KIND_UPSTREAM:
		a, err := cl.GetUpstream(ctx, &adminv1.GetUpstreamRequest{Name: name})
		return store.Wrap(a), err
	case adminv1.Kind_KIND_CERTIFICATE:
		a, err := cl.GetCertificate(ctx, &adminv1.GetCertificateRequest{Name: name})
		return store.Wrap(a), err
	default:
		a, err := cl.GetTrustBundle(ctx, &adminv1.GetTrustBundleRequest{Name: name})
		return store.Wrap(a), err
	}
}

// ListResources reads all pages of the resources of a kind whose labels match a
// selector.
func (cl *Client) ListResources(ctx context.Context, kind adminv1.Kind, selector string) ([]*adminv1.Resource, error) {
	switch kind {
	case adminv1.Kind_KIND_LISTENER:
		return wrapped(func(token string) ([]*adminv1.Listener, string, error) {
			a, err := cl.ListListeners(ctx, &adminv1.ListListenersRequest{PageToken: token, LabelSelector: selector})
			return a.GetListeners(), a.GetNextPageToken(), err
		})
	case adminv1.Kind_KIND_ROUTE:
		return wrapped(func(token string) ([]*adminv1.Route, string, error) {
			a, err := cl.ListRoutes(ctx, &adminv1.ListRoutesRequest{PageToken: token, LabelSelector: selector})
			return a.GetRoutes(), a.GetNextPageToken(), err
		})
	case adminv1.Kind_KIND_UPSTREAM:
		return wrapped(func(token string) ([]*adminv1.Upstream, string, error) {
			a, err := cl.ListUpstreams(ctx, &adminv1.ListUpstreamsRequest{PageToken: token, LabelSelector: selector})
			return a.GetUpstreams(), a.GetNextPageToken(), err
		})
	case adminv1.Kind_KIND_CERTIFICATE:
		return wrapped(func(token string) ([]*adminv1.Certificate, string, error) {
			a, err := cl.ListCertificates(ctx, &adminv1.ListCertificatesRequest{PageToken: token, LabelSelector: selector})
			return a.GetCertificates(), a.GetNextPageToken(), err
		})
	default:
		return wrapped(func(token string) ([]*adminv1.TrustBundle, string, error) {
			a, err := cl.ListTrustBundles(ctx, &adminv1.ListTrustBundlesRequest{PageToken: token, LabelSelector: selector})
			return a.GetTrustBundles(), a.GetNextPageToken(), err
		})
	}
}

// wrapped reads all pages of a list of resources.
func wrapped[T store.Resource](page func(token string) ([]T, string, error)) ([]*adminv1.Resource, error) {
	all, err := pages(page)
	var out []*adminv1.Resource
	for _, r := range all {
		out = append(out, store.Wrap(r))
	}
	return out, err
}

// names lists the resources of a kind.
func (cl *Client) names(ctx context.Context, kind adminv1.Kind) ([]string, error) {
	resources, err := cl.ListResources(ctx, kind, "")
	var names []string
	for _, r := range resources {
		names = append(names, nameOf(r))
	}
	return names, err
}

// UpstreamStatus returns the status of an upstream, or nil if it does not exist.
func (cl *Client) UpstreamStatus(ctx context.Context, name string) (*adminv1.UpstreamStatus, error) {
	all, err := cl.UpstreamStatuses(ctx)
	for _, u := range all {
		if u.GetName() == name {
			return u, err
		}
	}
	return nil, err
}

func nameOf(r *adminv1.Resource) string {
	if named, ok := manifest.Body(r).(interface{ GetName() string }); ok {
		return named.GetName()
	}
	return ""
}
