package client

import (
	"context"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// pages reads all pages of a list.
func pages[T any](page func(token string) ([]T, string, error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		some, next, err := page(token)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if next == "" {
			return all, nil
		}
		token = next
	}
}

// WholeStatus reads the status with every listener.
func (cl *Client) WholeStatus(ctx context.Context) (*adminv1.GetStatusResponse, error) {
	var status *adminv1.GetStatusResponse
	listeners, err := pages(func(token string) ([]*adminv1.ListenerStatus, string, error) {
		a, err := cl.Status.GetStatus(ctx, &adminv1.GetStatusRequest{PageToken: token})
		if status == nil {
			status = a
		}
		return a.GetListeners(), a.GetNextPageToken(), err
	})
	if err != nil {
		return nil, err
	}
	status.Listeners, status.NextPageToken = listeners, ""
	return status, nil
}

// UpstreamStatuses reads the state of every upstream.
func (cl *Client) UpstreamStatuses(ctx context.Context) ([]*adminv1.UpstreamStatus, error) {
	return pages(func(token string) ([]*adminv1.UpstreamStatus, string, error) {
		a, err := cl.Status.ListUpstreams(ctx, &adminv1.ListUpstreamStatusesRequest{PageToken: token})
		return a.GetUpstreams(), a.GetNextPageToken(), err
	})
}

// Connections reads the open connections that a filter selects; nil selects all.
func (cl *Client) Connections(ctx context.Context, f *adminv1.ConnectionFilter) ([]*adminv1.Connection, error) {
	return pages(func(token string) ([]*adminv1.Connection, string, error) {
		a, err := cl.Status.ListConnections(ctx, &adminv1.ListConnectionsRequest{ConnectionFilter: f, PageToken: token})
		return a.GetConnections(), a.GetNextPageToken(), err
	})
}

// Gateways reads every gateway of the fleet, by ID.
func (cl *Client) Gateways(ctx context.Context) (*adminv1.ListGatewaysResponse, error) {
	out := &adminv1.ListGatewaysResponse{}
	var err error
	out.Gateways, err = pages(func(token string) ([]*adminv1.Gateway, string, error) {
		a, err := cl.Fleet.ListGateways(ctx, &adminv1.ListGatewaysRequest{PageToken: token})
		out.HeadRevision = a.GetHeadRevision()
		return a.GetGateways(), a.GetNextPageToken(), err
	})
	return out, err
}

// CertificatesInUse reads every certificate in use, soonest to expire first.
func (cl *Client) CertificatesInUse(ctx context.Context) ([]*adminv1.CertificateInUse, error) {
	return pages(func(token string) ([]*adminv1.CertificateInUse, string, error) {
		a, err := cl.Status.ListCertificates(ctx, &adminv1.ListCertificatesInUseRequest{PageToken: token})
		return a.GetCertificates(), a.GetNextPageToken(), err
	})
}

// WholeConfig reads all resources of one revision. It uses a watch, because pages could
// span several revisions.
func (cl *Client) WholeConfig(ctx context.Context) (*adminv1.WatchConfigResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := cl.WatchConfig(ctx, &adminv1.WatchConfigRequest{})
	if err != nil {
		return nil, err
	}
	return RecvWhole(stream.Recv)
}

// RecvWhole receives the messages of a watch until one has synced set, and returns all of
// them as one message.
func RecvWhole(recv func() (*adminv1.WatchConfigResponse, error)) (*adminv1.WatchConfigResponse, error) {
	whole, err := recv()
	for err == nil && !whole.GetSynced() {
		var part *adminv1.WatchConfigResponse
		if part, err = recv(); err == nil {
			whole = joined(whole, part)
		}
	}
	return whole, err
}

// joined merges a message of a watch with its continuation. It takes ownership of both.
func joined(whole, part *adminv1.WatchConfigResponse) *adminv1.WatchConfigResponse {
	resources, changes := append(whole.Resources, part.Resources...), append(whole.Changes, part.Changes...)
	reset := whole.Reset_
	proto.Reset(whole)
	whole.Revision, whole.InstanceId, whole.Comment = part.Revision, part.InstanceId, part.Comment
	whole.Resources, whole.Changes, whole.Synced, whole.Reset_ = resources, changes, part.Synced, reset
	return whole
}
