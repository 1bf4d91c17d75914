package splice_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// A callback that panics ends its splice and no other.
func TestAPanicEndsOneSplice(t *testing.T) {
	for name, o := range map[string]splice.Options{
		"on the first reply": {FirstReply: func() { panic("on purpose") }},
		"at the end":         {Done: func(splice.Result) { panic("on purpose") }},
	} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, e *splice.Engine) {
				other, otherUpstream := connect(t, "tcp"), connect(t, "tcp")
				_, results := start(e, other.near, otherUpstream.near, splice.Options{})

				reported := make(chan string, 1)
				o := o
				o.Panicked = func(value any, stack []byte) { reported <- value.(string) + string(stack) }
				client, upstream := connect(t, "tcp"), connect(t, "tcp")
				ended := make(chan splice.Result, 1)
				done := o.Done
				o.Done = func(r splice.Result) {
					ended <- r
					if done != nil {
						done(r)
					}
				}
				o.Idle, o.Linger = time.Hour, time.Hour
				e.Start(client.near, upstream.near, o)
				upstream.far.Write([]byte("x"))
				if o.FirstReply == nil {
					upstream.far.(halfCloser).CloseWrite()
					client.far.(halfCloser).CloseWrite()
				}
				if text := <-reported; !strings.HasPrefix(text, "on purpose") || !strings.Contains(text, "panic_test.go") {
					t.Errorf("Panicked reports %q", text)
				}
				if r := <-ended; o.FirstReply != nil && r.Ending != splice.Panicked {
					t.Errorf("%+v", r)
				}
				if o.FirstReply != nil {
					if _, err := io.ReadAll(client.far); err == nil {
						t.Error("the client sees a clean end")
					}
				}

				otherUpstream.far.Write([]byte("y"))
				if _, err := io.ReadFull(other.far, make([]byte, 1)); err != nil {
					t.Error(err)
				}
				other.far.Close()
				otherUpstream.far.Close()
				wait(t, results)
			})
		})
	}
}

// A panicking is a connection whose LocalAddr panics.
type panicking struct{ net.Conn }

func (panicking) LocalAddr() net.Addr { panic("on purpose") }

// A panic during Start closes both connections, and leaves no lock held.
func TestAPanicInStartClosesBothConnections(t *testing.T) {
	for _, which := range []string{"client", "upstream"} {
		t.Run(which, func(t *testing.T) {
			engines(t, func(t *testing.T, e *splice.Engine) {
				client, upstream := connect(t, "tcp"), connect(t, "tcp")
				reported := make(chan any, 1)
				ended := make(chan splice.Result, 1)
				bad := map[string]pair{"client": client, "upstream": upstream}[which]
				bad.near.Conn = panicking{bad.near.Conn}
				s := e.Start(client.near, upstream.near, splice.Options{
					Panicked: func(value any, _ []byte) { reported <- value },
					Done:     func(r splice.Result) { ended <- r },
				})
				if value := <-reported; value != "on purpose" {
					t.Errorf("Panicked reports %v", value)
				}
				if r := <-ended; r.Ending != splice.Panicked {
					t.Errorf("%+v", r)
				}
				s.Cut(splice.Drained, net.ErrClosed) // the lock is free
				for _, c := range []net.Conn{client.far, upstream.far} {
					_, _ = io.ReadAll(c) // reads until the connection is closed
				}
			})
		})
	}
}
