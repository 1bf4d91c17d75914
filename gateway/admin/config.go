package admin

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// maxUnsent is how many updates may wait for a watcher that does not read.
const maxUnsent = 64

func (s adminService) GetConfig(context.Context, *adminv1.GetConfigRequest) (*adminv1.GetConfigResponse, error) {
	state := s.gateway.State()
	return &adminv1.GetConfigResponse{Revision: state.Revision(), Resources: s.everything(state)}, nil
}

// WatchConfig sends from a goroutine of its own, because a Send to a client
// that does not read would otherwise keep it from noticing that the client is
// too slow, for as long as the client likes.
func (s adminService) WatchConfig(_ *adminv1.WatchConfigRequest, stream grpc.ServerStreamingServer[adminv1.WatchConfigResponse]) error {
	now, updates, stop := s.gateway.Watch()
	defer stop()

	next := make(chan store.Update)
	defer close(next)
	sent := make(chan error, 1)
	// It ends when next is closed, or when this method's return, which ends
	// the stream, fails its Send.
	s.streams.Go(func() {
		sent <- s.recovered(adminv1.AdminService_WatchConfig_FullMethodName, func() error {
			return s.sendAll(stream, now, next)
		})
	})

	var unsent []store.Update
	for {
		var out chan<- store.Update
		var first store.Update
		if len(unsent) > 0 {
			out, first = next, unsent[0]
		}
		select {
		case u, ok := <-updates:
			if !ok || len(unsent) == maxUnsent {
				return s.watchEnded()
			}
			unsent = append(unsent, u)
		case out <- first:
			unsent = unsent[1:]
		case err := <-sent:
			return err
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// watchEnded returns why a watch ended that neither its client nor an error
// did end.
func (s *Server) watchEnded() error {
	select {
	case <-s.stopping:
		return errStopping()
	default:
		return statusWith(codes.ResourceExhausted, "WATCH_TOO_SLOW", "the watch was read too slowly: watch again").Err()
	}
}

// sendAll sends the state and then each update until next is closed or the
// stream fails.
func (s adminService) sendAll(stream grpc.ServerStreamingServer[adminv1.WatchConfigResponse], now *store.State, next <-chan store.Update) error {
	err := stream.Send(&adminv1.WatchConfigResponse{Revision: now.Revision(), Resources: s.everything(now)})
	if err != nil {
		return err
	}
	for u := range next {
		if err := stream.Send(s.step(u)); err != nil {
			return err
		}
	}
	return nil
}

// everything returns all of a state, fit to be shown.
func (s adminService) everything(state *store.State) []*adminv1.Resource {
	all := state.All()
	shown := make([]*adminv1.Resource, len(all))
	for i, r := range all {
		shown[i] = asResource(s.gateway.Present(r))
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
			m.Resources = append(m.Resources, asResource(s.gateway.Present(u.State.Get(c.Kind, c.Name))))
		}
	}
	return m
}
