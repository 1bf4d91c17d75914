package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A fakeStream is a gateway whose changes and events the test supplies.
type fakeStream struct {
	changes chan *adminv1.WatchConfigResponse
	events  chan *adminv1.Event
	end     chan error // a value ends the stream of events
	sh      shell
}

func newFeed(t *testing.T) *fakeStream {
	f := &fakeStream{changes: make(chan *adminv1.WatchConfigResponse), events: make(chan *adminv1.Event), end: make(chan error)}
	f.sh = serveFake(t, fakeAdmin{
		watch: func(s grpc.ServerStreamingServer[adminv1.WatchConfigResponse]) error {
			for {
				select {
				case u := <-f.changes:
					if err := s.Send(u); err != nil {
						return err
					}
				case <-s.Context().Done():
					return nil
				}
			}
		},
		status: fakeStatus{events: func(s grpc.ServerStreamingServer[adminv1.Event]) error {
			if err := s.SendHeader(nil); err != nil {
				return err
			}
			for {
				select {
				case e := <-f.events:
					if err := s.Send(e); err != nil {
						return err
					}
				case err := <-f.end:
					return err
				case <-s.Context().Done():
					return nil
				}
			}
		}},
	})
	return f
}

func TestChangesAndEventsAreWatchedTogether(t *testing.T) {
	for _, tt := range []struct{ output, start, event, change string }{
		{"table", "revision 4      0 resources\n", "failed   Upstream pay EXPIRED (2 times)\n", "revision 5      deleted  Route old   # why\n"},
		{"json", `{"revision":"4","synced":true}` + "\n", `{"event":{"eventTime":"2030-01-01T00:00:00Z","type":"HANDSHAKE_FAILURE","kind":"UPSTREAM","name":"pay","endpoint":"","health":"","reason":"EXPIRED","message":"","count":"2","revision":"0","sequence":"0"}}` + "\n", `"action":"CHANGE_ACTION_DELETED"`},
		{"yaml", "---\nrevision: \"4\"\n", "---\nevent:\n  eventTime: \"2030-01-01T00:00:00Z\"\n  type: HANDSHAKE_FAILURE\n", "---\nrevision: \"5\"\n"},
	} {
		f := newFeed(t)
		w := start(t, f.sh.env, "watch", "-o", tt.output)
		f.changes <- &adminv1.WatchConfigResponse{Revision: 4, Synced: true}
		w.out.until(t, tt.start, 1)
		f.events <- text(t, &adminv1.Event{}, `event_time { seconds: 1893456000 } type: EVENT_TYPE_HANDSHAKE_FAILURE kind: KIND_UPSTREAM name: "pay" reason: REASON_EXPIRED count: 2`)
		w.out.until(t, tt.event, 1)
		f.events <- &adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_APPLIED, Revision: 5, Message: "reported twice"}
		f.changes <- text(t, &adminv1.WatchConfigResponse{}, `revision: 5 synced: true comment: "why" changes { kind: KIND_ROUTE name: "old" action: CHANGE_ACTION_DELETED }`)
		w.out.until(t, tt.change, 1)
		if strings.Contains(w.out.String(), "reported twice") {
			t.Errorf("a change is reported as an event too:\n%s", w.out)
		}
		if tt.output == "json" {
			for line := range strings.Lines(w.out.String()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("not JSON: %s", line)
				}
			}
		}
		if code := w.stop(); code != exit.OK {
			t.Errorf("watch was interrupted and exits with %d: %s", code, w.log)
		}
	}
}

func TestAWatchEndsWithEitherStream(t *testing.T) {
	for end, want := range map[error]struct {
		code int
		log  string
	}{
		nil: {exit.Unavailable, "Error: the gateway ended the stream\n"},
		status.Error(codes.ResourceExhausted, "too slow"): {exit.Failure, "Error: too slow\n"},
	} {
		f := newFeed(t)
		w := start(t, f.sh.env, "watch")
		f.changes <- &adminv1.WatchConfigResponse{Synced: true}
		w.out.until(t, "revision 0", 1)
		f.end <- end
		w.log.until(t, want.log, 1)
		if code := w.stop(); code != want.code {
			t.Errorf("%v: watch exits with %d", end, code)
		}
	}
}

func TestAWriteErrorEndsTheWatch(t *testing.T) {
	w := watchWriter{w: fullDisk{}, format: format.JSON}
	if err := w.event(&adminv1.Event{}); err == nil {
		t.Error("an event that was not written causes no error")
	}
	var out bytes.Buffer
	w.w, w.format = &out, format.Table
	if err := w.update(&adminv1.WatchConfigResponse{Revision: 2}); err != nil || out.Len() != 0 {
		t.Errorf("%v; wrote %s", err, out.String())
	}
}

// fullDisk is a disk without space.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, bytes.ErrTooLarge }
