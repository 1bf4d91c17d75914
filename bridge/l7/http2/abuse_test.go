package http2

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

var frameNames = [streamFrames]string{"DATA", "empty DATA", "HEADERS", "PRIORITY", "RST_STREAM", "WINDOW_UPDATE"}
var stateNames = [streamStates]string{"idle", "fresh", "open", "unwanted", "ended", "answered", "reset", "closed", "beyond"}

// A streamInState is a connection to a raw peer with a stream in a known state.
type streamInState struct {
	*raw
	c  *conn
	id uint32 // the stream's ID
}

// sync waits until everything sent has been processed, and returns the frames
// that came back. ok is false if the connection ended instead.
func (s *streamInState) sync() (frames []string, ok bool) {
	s.t.Helper()
	mark := [8]byte{'m', 'a', 'r', 'k'}
	_ = s.WritePing(false, mark)
	for {
		f, err := s.ReadFrame()
		if err != nil {
			return append(frames, "closed"), false
		}
		switch f := f.(type) {
		case *h2.PingFrame:
			if f.IsAck() && f.Data == mark {
				return frames, true
			}
		case *h2.RSTStreamFrame:
			frames = append(frames, fmt.Sprintf("RST %d %v", f.StreamID, f.ErrCode))
		case *h2.GoAwayFrame:
			if f.ErrCode != h2.ErrCodeNo {
				return append(frames, "GOAWAY "+f.ErrCode.String()), false
			}
		case *h2.SettingsFrame:
			if !f.IsAck() {
				s.must(s.WriteSettingsAck())
			}
		}
	}
}

// budgets returns what is left of each account.
func (s *streamInState) budgets() (left [accounts]int) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for a := range left {
		left[a] = s.c.abuse.budgets[a].left
	}
	return left
}

// halfFill half-fills every account and stops time.
func (s *streamInState) halfFill() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for a := range s.c.abuse.budgets {
		s.c.abuse.budgets[a] = budget{left: 1000, full: 2000}
	}
}

// state returns the state of its stream.
func (s *streamInState) state() streamState {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	_, state := s.c.stateOf(s.id)
	return state
}

// newStreamInState returns a streamInState whose stream is in a state, or nil if that state
// does not exist in this role.
func newStreamInState(t *testing.T, server bool, want streamState) *streamInState {
	if server {
		return newServerStage(t, want)
	}
	return newClientStage(t, want)
}

func newServerStage(t *testing.T, want streamState) *streamInState {
	if want == answeredStream {
		return nil
	}
	hold := make(chan struct{})
	nc, c := serve(t, Options{}, func(s *ServerStream) {
		switch s.Request().Target {
		case "/refuse":
			s.Refuse()
			_ = s.Respond(ok(), false)
			_ = s.Flush()
			<-hold
		case "/reset":
			s.Abort(errTest)
		case "/answer":
			_ = s.Respond(&message.Response{Status: 204}, true)
		default:
			<-hold
		}
	})
	t.Cleanup(func() { close(hold) }) // runs before the cleanup of serve
	s := &streamInState{raw: rawClient(t, nc), c: &c.conn, id: 1}
	request := func(id uint32, end bool, path string) {
		s.headers(id, end, ":method: POST", ":scheme: https", ":authority: a.test", ":path: "+path)
	}
	switch want {
	case idleStream:
		s.id = 2
	case openStream:
		request(1, false, "/")
	case unwantedStream:
		request(1, false, "/refuse")
	case endedStream:
		request(1, true, "/")
	case resetStream:
		request(1, false, "/reset")
	case closedStream:
		request(1, true, "/answer")
	case beyondStream:
		request(1, true, "/") // keeps the connection open
		s.id = 3
		if _, ok := s.sync(); !ok {
			t.Fatal("the connection was ended")
		}
		c.Shutdown()
		s.must(s.WritePing(true, drainPing))
	}
	return s
}

func newClientStage(t *testing.T, want streamState) *streamInState {
	c, nc := dial(t, Options{})
	s := &streamInState{raw: rawServer(t, nc), c: &c.conn, id: 1}
	request := func() *ClientStream {
		st := c.Open()
		if err := st.Send(post("/"), false); err != nil {
			t.Fatal(err)
		}
		_ = st.Flush()
		t.Cleanup(st.Done)
		s.takeRequest()
		return st
	}
	switch want {
	case idleStream:
	case openStream:
		request()
		s.headers(1, false, ":status: 200")
	case answeredStream:
		request()
		s.headers(1, true, ":status: 200")
	case resetStream:
		request().Abort(errTest)
	case closedStream:
		st := request()
		s.headers(1, true, ":status: 200")
		if _, ok := s.sync(); !ok {
			t.Fatal("the connection was ended")
		}
		_ = st.End(nil)
	default:
		return nil
	}
	return s
}

// send sends a frame of a kind on its stream.
func (s *streamInState) send(f streamFrame) {
	switch f {
	case dataFrame:
		_ = s.WriteData(s.id, false, []byte("x"))
	case emptyDataFrame:
		_ = s.WriteDataPadded(s.id, false, nil, make([]byte, 3))
	case headersFrame:
		fields := simple
		if s.c.client != nil {
			fields = []string{":status: 200"}
		}
		if state := s.state(); state == openStream || state == unwantedStream {
			fields = []string{"x: trailer"}
		}
		s.headersQuietly(s.id, true, fields...)
	case priorityFrame:
		_ = s.WritePriority(s.id, h2.PriorityParam{StreamDep: 1 << 30})
	case resetFrame:
		_ = s.WriteRSTStream(s.id, h2.ErrCodeCancel)
	case windowFrame:
		_ = s.WriteWindowUpdate(s.id, 1)
	}
}

// Every frame in every state is handled, and costs or earns, as the table says.
// Frames that the table ignores or refuses never earn.
func TestFrameCostsMatchTheTable(t *testing.T) {
	for _, server := range []bool{true, false} {
		for state := range streamStates {
			for f := range streamFrames {
				role := map[bool]string{true: "server", false: "client"}[server]
				t.Run(role+"/"+stateNames[state]+"/"+frameNames[f], func(t *testing.T) {
					t.Parallel()
					s := newStreamInState(t, server, state)
					if s == nil {
						t.Skip("no such stream in this role")
					}
					if _, ok := s.sync(); !ok {
						t.Fatal("the connection was ended")
					}
					eventually(t, "the state "+stateNames[state], func() bool { return s.state() == state })
					if _, ok := s.sync(); !ok {
						t.Fatal("the connection was ended")
					}
					s.halfFill()
					before := s.budgets()
					s.send(f)
					frames, ok := s.sync()
					r := streamRules[f][state]
					if r.verdict == fatal {
						if want := "GOAWAY " + r.code.String(); ok || !slices.Contains(frames, want) {
							t.Fatalf("%v, want %s", frames, want)
						}
						return
					}
					if !ok {
						t.Fatalf("the connection was ended: %v", frames)
					}
					want := [accounts]int{}
					want[r.from] -= r.cost
					want[framesAccount] -= connFrameCosts[h2.FramePing] // the PING of sync
					reset := fmt.Sprintf("RST %d %v", s.id, r.code)
					switch {
					case r.verdict == refuse:
						want[streamsAccount]--
						if !slices.Contains(frames, reset) {
							t.Errorf("%v, want %s", frames, reset)
						}
					case r.verdict == process && state == openStream && f == dataFrame:
						want[framesAccount] += 1
					case r.verdict == process && f == headersFrame && state != unwantedStream:
						want[framesAccount] += 4
					}
					if r.verdict != refuse && strings.Contains(strings.Join(frames, " "), "RST") {
						t.Errorf("%v", frames)
					}
					after := s.budgets()
					for a := range accounts {
						if got := after[a] - before[a]; got != want[a] {
							t.Errorf("account %d changed by %d, want %d", a, got, want[a])
						}
					}
				})
			}
		}
	}
}

// Any useless frame, repeated, ends the connection.
func TestUselessFramesExhaustABudget(t *testing.T) {
	for state := range streamStates {
		for f := range streamFrames {
			if r := streamRules[f][state]; r.verdict == fatal || r.verdict == process && r.cost == 0 {
				continue // ends the connection at once, or is useful
			}
			t.Run(stateNames[state]+"/"+frameNames[f], func(t *testing.T) {
				t.Parallel()
				server := state != answeredStream
				s := newStreamInState(t, server, state)
				if _, ok := s.sync(); !ok {
					t.Fatal("the connection was ended")
				}
				eventually(t, "the state "+stateNames[state], func() bool { return s.state() == state })
				s.c.mu.Lock()
				for a := range s.c.abuse.budgets { // a small budget is enough to test
					s.c.abuse.budgets[a].left, s.c.abuse.budgets[a].full, s.c.abuse.budgets[a].perSecond = 100, 100, 0
				}
				s.c.mu.Unlock()
				if code := flood(t, s.raw, func(int) { s.send(f) }); code == h2.ErrCodeNo {
					t.Errorf("%v", code)
				}
			})
		}
	}
}
