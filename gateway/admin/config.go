package admin

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/history"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s adminService) GetConfig(_ context.Context, req *adminv1.GetConfigRequest) (*adminv1.GetConfigResponse, error) {
	return s.configPage(req)
}

// chunkBytes is the approximate size of the resources in a message of a watch. It bounds
// the memory that a stream holds while its client does not read.
const chunkBytes = 64 << 10

func (s adminService) WatchConfig(req *adminv1.WatchConfigRequest, stream grpc.ServerStreamingServer[adminv1.WatchConfigResponse]) error {
	return s.withSendTimeout(stream.Context(), adminv1.AdminService_WatchConfig_FullMethodName, func(timed timedSend) error {
		w := configWatch{adminService: s, send: func(m *adminv1.WatchConfigResponse) error {
			m.InstanceId = s.gateway.InstanceID()
			return timed(func() error { return stream.Send(m) })
		}}
		at, err := w.begin(req)
		if err != nil {
			return err
		}
		return follow(s.Server, stream.Context(), at, s.gateway.Updates, func(u store.Update) (int64, error) {
			return u.Revision, w.update(u)
		})
	})
}

// A configWatch sends the state and its changes, in messages of bounded size.
type configWatch struct {
	adminService
	send func(*adminv1.WatchConfigResponse) error
}

// begin sends the state, or nothing if the client's revision can be continued. It
// returns the revision that the client then has.
func (w configWatch) begin(req *adminv1.WatchConfigRequest) (int64, error) {
	state := w.gateway.State()
	if at := req.GetRevision(); req.GetInstanceId() == w.gateway.InstanceID() && at >= 0 && at <= state.Revision() {
		missed, _, err := w.gateway.Updates(at)
		switch {
		case errors.Is(err, history.ErrBehind):
		case err != nil:
			return 0, err
		case len(missed) > 0:
			return at, nil // each update ends with synced
		default:
			return at, w.send(&adminv1.WatchConfigResponse{Revision: at, Synced: true})
		}
	}
	m := &adminv1.WatchConfigResponse{Revision: state.Revision(), Reset_: true}
	size := 0
	for _, k := range store.Kinds() {
		for _, r := range state.List(k) {
			shown := store.Wrap(w.gateway.Present(r))
			m.Resources, size = append(m.Resources, shown), size+proto.Size(shown)
			if size < chunkBytes {
				continue
			}
			if err := w.send(m); err != nil {
				return 0, err
			}
			m, size = &adminv1.WatchConfigResponse{Revision: state.Revision()}, 0
		}
	}
	if len(m.Resources) > 0 {
		if err := w.send(m); err != nil {
			return 0, err
		}
		m = &adminv1.WatchConfigResponse{Revision: state.Revision()}
	}
	m.Synced = true
	return state.Revision(), w.send(m)
}

// update sends an update.
func (w configWatch) update(u store.Update) error {
	resources := map[store.Ref]store.Resource{}
	for _, r := range u.Resources {
		resources[store.RefOf(r)] = r
	}
	m := &adminv1.WatchConfigResponse{Revision: u.Revision, Comment: u.Comment}
	size := 0
	for _, c := range u.Changes {
		if size >= chunkBytes {
			if err := w.send(m); err != nil {
				return err
			}
			m, size = &adminv1.WatchConfigResponse{Revision: u.Revision, Comment: u.Comment}, 0
		}
		m.Changes = append(m.Changes, changesOf([]store.Change{c})...)
		size += 64 // more than the overhead of a change
		if r := resources[store.Ref{Kind: c.Kind, Name: c.Name}]; r != nil {
			shown := store.Wrap(w.gateway.Present(r))
			m.Resources, size = append(m.Resources, shown), size+proto.Size(shown)
		}
	}
	m.Synced = true
	return w.send(m)
}
