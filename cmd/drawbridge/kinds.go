package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// getResource reads one resource.
func (cl *client) getResource(ctx context.Context, kind adminv1.Kind, name string) (*adminv1.Resource, error) {
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

// listResources reads all pages of the resources of a kind whose labels match a
// selector.
func (cl *client) listResources(ctx context.Context, kind adminv1.Kind, selector string) ([]*adminv1.Resource, error) {
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

// parseKind is manifest.ParseKind for an argument of the command line.
func parseKind(arg string) (adminv1.Kind, error) {
	kind, err := manifest.ParseKind(arg)
	if err != nil {
		return 0, usageError(err.Error())
	}
	return kind, nil
}

// completeKindAndName completes KIND, and NAME from the running gateway. extra are
// further words that are valid as KIND.
func (c *cli) completeKindAndName(o *connector, extra ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			words := slices.Clone(extra)
			for _, name := range manifest.KindNames() {
				words = append(words, strings.ToLower(name))
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		}
		kind, err := manifest.ParseKind(args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.complete(cmd, o, func(cl *client) ([]string, error) { return cl.names(cmd.Context(), kind) })
	}
}

// completeName completes the only argument: the name of a resource.
func (c *cli) completeName(o *connector, kind adminv1.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.complete(cmd, o, func(cl *client) ([]string, error) { return cl.names(cmd.Context(), kind) })
	}
}

// completeFlag completes a flag of cmd with the words for the upstream that the only
// argument names.
func (c *cli) completeFlag(cmd *cobra.Command, o *connector, flag string, words func(*adminv1.UpstreamStatus) []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.complete(cmd, o, func(cl *client) ([]string, error) {
			u, err := cl.upstreamStatus(cmd.Context(), args[0])
			return words(u), err
		})
	})
	if err != nil {
		panic(err) // no such flag: a programming error
	}
}

// complete asks the running gateway for words.
func (c *cli) complete(cmd *cobra.Command, o *connector, words func(*client) ([]string, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	if c.readEnv(cmd.Flags()) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cl, err := o.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer cl.Close()
	found, err := words(cl)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// names lists the resources of a kind.
func (cl *client) names(ctx context.Context, kind adminv1.Kind) ([]string, error) {
	resources, err := cl.listResources(ctx, kind, "")
	var names []string
	for _, r := range resources {
		names = append(names, nameOf(r))
	}
	return names, err
}

// upstreamStatus returns the status of an upstream, or nil if it does not exist.
func (cl *client) upstreamStatus(ctx context.Context, name string) (*adminv1.UpstreamStatus, error) {
	all, err := cl.upstreamStatuses(ctx)
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
