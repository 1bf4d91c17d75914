package admin

import (
	"context"

	"google.golang.org/grpc"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s adminService) GetConfig(context.Context, *adminv1.GetConfigRequest) (*adminv1.GetConfigResponse, error) {
	state := s.gateway.State()
	return &adminv1.GetConfigResponse{Revision: state.Revision(), Resources: s.everything(state)}, nil
}

func (s adminService) WatchConfig(_ *adminv1.WatchConfigRequest, stream grpc.ServerStreamingServer[adminv1.WatchConfigResponse]) error {
	now, updates, stop := s.gateway.Watch()
	defer stop()
	first := func() error {
		return stream.Send(&adminv1.WatchConfigResponse{Revision: now.Revision(), Resources: s.everything(now)})
	}
	return relay(s.Server, stream.Context(), adminv1.AdminService_WatchConfig_FullMethodName, updates, first,
		func(u store.Update) error { return stream.Send(s.step(u)) })
}

// everything returns all of a state, fit to be shown.
func (s adminService) everything(state *store.State) []*adminv1.Resource {
	all := state.All()
	shown := make([]*adminv1.Resource, len(all))
	for i, r := range all {
		shown[i] = store.Wrap(s.gateway.Present(r))
	}
	return shown
}

// step returns an update as a watcher sees it.
func (s adminService) step(u store.Update) *adminv1.WatchConfigResponse {
	m := &adminv1.WatchConfigResponse{
		Revision: u.State.Revision(),
		Changes:  changesOf(u.Changes),
		Comment:  u.Comment,
	}
	for _, c := range u.Changes {
		switch c.Action {
		case adminv1.ChangeAction_CHANGE_ACTION_CREATED, adminv1.ChangeAction_CHANGE_ACTION_UPDATED:
			m.Resources = append(m.Resources, store.Wrap(s.gateway.Present(u.State.Get(c.Kind, c.Name))))
		}
	}
	return m
}
