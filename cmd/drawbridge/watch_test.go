package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEventsArePrintedOnePerLine(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)
	for in, want := range map[string]string{
		`type: EVENT_TYPE_ENDPOINT_HEALTH kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" health: ENDPOINT_HEALTH_DOWN reason: REASON_UNKNOWN_CA message: "no\nCA" count: 1`: "01-02 03:04:05  <31down    > Upstream pay a:1 <31UNKNOWN_CA>: no CA",
		`type: EVENT_TYPE_ENDPOINT_HEALTH kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" health: ENDPOINT_HEALTH_UP`:                                                        "01-02 03:04:05  <32up      > Upstream pay a:1",
		`type: EVENT_TYPE_HANDSHAKE_FAILURE kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" reason: REASON_NOT_TLS count: 7`:                                                 "01-02 03:04:05  <31failed  > Upstream pay a:1 <31NOT_TLS><2 (7 times)>",
		`type: EVENT_TYPE_EXPIRY kind: KIND_TRUST_BUNDLE name: "corp" message: "expires in 6 days"`:                                                                          "01-02 03:04:05  <33expiry  > TrustBundle corp: expires in 6 days",
		`type: EVENT_TYPE_ENDPOINTS_CHANGED kind: KIND_UPSTREAM name: "pay" message: "10.0.0.2:1 came" count: 1`:                                                             "01-02 03:04:05  <33changed > Upstream pay: 10.0.0.2:1 came",
		`type: EVENT_TYPE_ENDPOINT_EJECTED kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" reason: REASON_EXPIRED message: "5 failures in a row" count: 1`:                   "01-02 03:04:05  <31ejected > Upstream pay a:1 <31EXPIRED>: 5 failures in a row",
		`type: EVENT_TYPE_ENDPOINT_RETURNED kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" message: "its time is over" count: 1`:                                            "01-02 03:04:05  <32returned> Upstream pay a:1: its time is over",
		`type: EVENT_TYPE_FILE_LOADED kind: KIND_CERTIFICATE name: "c" revision: 3`:                                                                                          "01-02 03:04:05  <32loaded  > Certificate c",
		`type: EVENT_TYPE_FILE_REFUSED kind: KIND_CERTIFICATE name: "c" message: "the key does not fit"`:                                                                     "01-02 03:04:05  <31refused > Certificate c: the key does not fit",
		`type: 99`: "01-02 03:04:05  <3399      >",
	} {
		e := text(t, &adminv1.Event{}, in)
		e.EventTime = timestamppb.New(at)
		colored := strings.NewReplacer("\x1b[0m", ">", "\x1b[2m", "<2", "\x1b[31m", "<31", "\x1b[32m", "<32", "\x1b[33m", "<33").Replace(eventLine(true, e))
		if colored != want {
			t.Errorf("got  %s\nwant %s", colored, want)
		}
		if plain := eventLine(false, e); strings.Contains(plain, "\x1b") {
			t.Errorf("an escape sequence without a terminal: %q", plain)
		}
	}
}

// A fakeStream is a gateway whose changes and events a test makes.
type fakeStream struct {
	changes chan *adminv1.WatchConfigResponse
	events  chan *adminv1.Event
	end     chan error // ends the stream of events
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
		f.events <- &adminv1.Event{Type: adminv1.EventType_EVENT_TYPE_APPLIED, Revision: 5, Message: "told twice"}
		f.changes <- text(t, &adminv1.WatchConfigResponse{}, `revision: 5 synced: true comment: "why" changes { kind: KIND_ROUTE name: "old" action: CHANGE_ACTION_DELETED }`)
		w.out.until(t, tt.change, 1)
		if strings.Contains(w.out.String(), "told twice") {
			t.Errorf("a change is reported as an event too:\n%s", w.out)
		}
		if tt.output == "json" {
			for line := range strings.Lines(w.out.String()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("not JSON: %s", line)
				}
			}
		}
		if code := w.stop(); code != exitOK {
			t.Errorf("interrupted, watch exits with %d: %s", code, w.log)
		}
	}
}

func TestAWatchEndsWithEitherStream(t *testing.T) {
	for end, want := range map[error]struct {
		code int
		log  string
	}{
		nil: {exitUnavailable, "Error: the gateway ended the stream\n"},
		status.Error(codes.ResourceExhausted, "too slow"): {exitFailure, "Error: too slow\n"},
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
	w := watchWriter{w: fullDisk{}, format: formatJSON}
	if err := w.event(&adminv1.Event{}); err == nil {
		t.Error("an event that was not written is no error")
	}
	var out bytes.Buffer
	w.w, w.format = &out, formatTable
	if err := w.update(&adminv1.WatchConfigResponse{Revision: 2}); err != nil || out.Len() != 0 {
		t.Errorf("%v; wrote %s", err, out.String())
	}
}

// fullDisk is a disk without space.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, bytes.ErrTooLarge }
