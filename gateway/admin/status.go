package admin

import (
	"cmp"
	"context"
	"slices"
	"sort"

	"google.golang.org/grpc"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// statusService implements StatusService. It is not part of adminService because both
// services have a ListUpstreams method.
type statusService struct {
	*Server
	adminv1.UnsafeStatusServiceServer
}

// maxProblems bounds how many problems, and how many warnings, a status lists.
const maxProblems = 1000

func (s statusService) GetStatus(ctx context.Context, req *adminv1.GetStatusRequest) (*adminv1.GetStatusResponse, error) {
	const list = "status"
	last, err := parseToken[string](list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := s.gateway.Status()
	out.ProblemCount, out.WarningCount = int32(len(out.Problems)), int32(len(out.Warnings))
	out.Problems, out.Warnings = first(out.Problems, maxProblems), first(out.Warnings, maxProblems)
	all := out.Listeners
	slices.SortStableFunc(all, func(a, b *adminv1.ListenerStatus) int { return cmp.Compare(a.GetName(), b.GetName()) })
	if last != nil {
		all = all[sort.Search(len(all), func(i int) bool { return all[i].GetName() > *last }):]
	}
	p, n := newPage(req.GetPageSize()), 0
	for ; n < len(all); n++ {
		// All listeners with the same name, including draining ones, are on one page.
		if !p.takes(all[n]) && all[n].GetName() != all[n-1].GetName() {
			out.NextPageToken = formatToken(list, all[n-1].GetName())
			break
		}
	}
	out.Listeners, out.Caller = all[:n], s.describe(ctx)
	return out, nil
}

func (s statusService) ListUpstreams(_ context.Context, req *adminv1.ListUpstreamStatusesRequest) (*adminv1.ListUpstreamStatusesResponse, error) {
	page, next, err := pageOf(s.gateway.State().List(adminv1.Kind_KIND_UPSTREAM), "statuses", req, func(r store.Resource) (*adminv1.UpstreamStatus, bool) {
		u := s.gateway.UpstreamStatus(r.GetName())
		return u, u != nil
	})
	return &adminv1.ListUpstreamStatusesResponse{Upstreams: page, NextPageToken: next}, err
}

// A CertificateKey orders certificates in use. Keys are unique, except for a
// certificate that a bundle holds twice.
type CertificateKey struct {
	NotAfter    int64 // seconds since 1970
	Use         adminv1.CertificateUse
	Name        string
	Fingerprint string
	Endpoint    string
}

// Compare orders two keys, like cmp.Compare.
func (k CertificateKey) Compare(o CertificateKey) int {
	return cmp.Or(
		cmp.Compare(k.NotAfter, o.NotAfter), cmp.Compare(k.Use, o.Use), cmp.Compare(k.Name, o.Name),
		cmp.Compare(k.Endpoint, o.Endpoint), cmp.Compare(k.Fingerprint, o.Fingerprint),
	)
}

func (s statusService) ListCertificates(_ context.Context, req *adminv1.ListCertificatesInUseRequest) (*adminv1.ListCertificatesInUseResponse, error) {
	const list = "certificates"
	after, err := parseToken[CertificateKey](list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListCertificatesInUseResponse{}
	p := newPage(req.GetPageSize())
	var last CertificateKey
	s.gateway.EachCertificate(after, func(k CertificateKey, c *adminv1.CertificateInUse) bool {
		if !p.takes(c) {
			out.NextPageToken = formatToken(list, last)
			return false
		}
		out.Certificates, last = append(out.Certificates, c), k
		return true
	})
	return out, nil
}

func (s statusService) WatchEvents(req *adminv1.WatchEventsRequest, stream grpc.ServerStreamingServer[adminv1.Event]) error {
	before, last := s.gateway.EventBounds()
	missed := int64(-1) // no event was missed
	if req.AfterSequence != nil {
		switch after := req.GetAfterSequence(); {
		case after > last: // from another process's history: all stored events are new
			last, missed = before, 0
		case after < before && after > 0:
			last, missed = before, before-after
		default:
			last = max(after, before)
		}
	}
	return s.withSendTimeout(stream.Context(), adminv1.StatusService_WatchEvents_FullMethodName, func(timed timedSend) error {
		// The header tells the client that it will receive every event from now on.
		if err := timed(func() error { return stream.SendHeader(nil) }); err != nil {
			return err
		}
		if missed >= 0 {
			e := &adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_MISSED, Sequence: last, Count: missed, Message: "earlier events are no longer kept"}
			if err := timed(func() error { return stream.Send(e) }); err != nil {
				return err
			}
		}
		wanted := eventFilter(req)
		return follow(s.Server, stream.Context(), last, s.gateway.Events, func(e *adminv1.Event) (int64, error) {
			if !wanted(e) {
				return e.GetSequence(), nil
			}
			return e.GetSequence(), timed(func() error { return stream.Send(e) })
		})
	})
}

// eventFilter returns whether an event matches the filters of a request.
func eventFilter(req *adminv1.WatchEventsRequest) func(*adminv1.Event) bool {
	types, kinds, names := setOf(req.GetTypes()), setOf(req.GetKinds()), setOf(req.GetNames())
	return func(e *adminv1.Event) bool {
		return types.allows(e.GetType()) && kinds.allows(e.GetKind()) && names.allows(e.GetName())
	}
}

// A filter is a set of accepted values. An empty filter accepts all.
type filter[T comparable] map[T]bool

func setOf[T comparable](values []T) filter[T] {
	f := filter[T]{}
	for _, v := range values {
		f[v] = true
	}
	return f
}

func (f filter[T]) allows(v T) bool { return len(f) == 0 || f[v] }
