package exchange

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// An idleSide is one side of a tunnel. Nothing happens on it until the tunnel
// ends.
type idleSide struct {
	finish  chan struct{}
	stuck   bool // writes wait too
	ended   bool // its stream has ended
	pending atomic.Int32
}

func (s *idleSide) Read() ([]byte, error) {
	if s.ended {
		return nil, io.EOF
	}
	if s.pending.Add(-1) >= 0 {
		return []byte("x"), nil
	}
	<-s.finish
	return nil, errors.New("over")
}

func (s *idleSide) Buffered() bool { return s.pending.Load() > 0 }

func (s *idleSide) Flush() error { return nil }

func (s *idleSide) Write([]byte) error {
	if s.stuck {
		<-s.finish
		return errors.New("over")
	}
	return nil
}

// With every HTTP version, an upgraded connection that carries no bytes ends at
// its idle limit. When one side has ended its stream, the limit is shorter.
func TestIdleTunnelsEnd(t *testing.T) {
	t.Parallel()
	const short, long = 200 * time.Millisecond, time.Hour
	for name, c := range map[string]struct {
		idle, linger time.Duration
		ended, stuck bool
		how          splice.Ending
	}{
		"nothing moves":                                       {short, long, false, false, splice.Idle},
		"one side has ended":                                  {long, short, true, false, splice.Linger},
		"a side reads nothing":                                {short, long, false, true, splice.Idle},
		"one side has ended and reads nothing":                {short * 2, short, true, true, splice.Idle},
		"one side has ended, and idle is shorter than linger": {short, long, true, false, splice.Idle},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			finish := make(chan struct{})
			ended := make(chan splice.Ending, 1)
			begun := time.Now()
			tunnel := newTunnel(c.idle, c.linger, func(how splice.Ending) {
				ended <- how
				close(finish)
			})
			defer tunnel.stop()
			client, server := &idleSide{finish: finish, ended: c.ended}, &idleSide{finish: finish}
			if c.stuck {
				client.stuck = true
				server.pending.Store(1)
			}
			done := make(chan bool, 2)
			var n, m uint64
			go func() { _, _ = tunnel.carry(client, idleSink{server}, &n, nil); done <- true }()
			go func() { _, _ = tunnel.carry(server, idleSink{client}, &m, nil); done <- true }()
			if how := <-ended; how != c.how || time.Since(begun) < short {
				t.Errorf("ended as %q after %v, want %q", how, time.Since(begun), c.how)
			}
			<-done
			<-done
		})
	}
}

type idleSink struct{ *idleSide }

func (idleSink) End(message.Fields) error { return nil }
