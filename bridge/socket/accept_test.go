package socket

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A script is a listener whose Accept returns the given errors and connections in
// order.
type script struct {
	net.Listener
	answers chan any
}

func (s script) Accept() (net.Conn, error) {
	switch a := (<-s.answers).(type) {
	case error:
		return nil, a
	case net.Conn:
		return a, nil
	}
	return nil, net.ErrClosed
}

func TestAcceptBacksOffWithoutDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := make(chan any, 100)
		for range 12 {
			answers <- error(os.NewSyscallError("accept", syscall.EMFILE))
		}
		a, b := net.Pipe()
		defer b.Close()
		answers <- a
		answers <- error(syscall.ENFILE)
		close(answers)

		var log strings.Builder
		var taken []net.Conn
		start := time.Now()
		err := Accept(script{nil, answers}, nil, hclog.New(&hclog.LoggerOptions{Output: &log}), func(c net.Conn) {
			taken = append(taken, c)
			// 5+10+…+640 ms, then 1 s each
			if waited := time.Since(start); waited != 1275*time.Millisecond+4*time.Second {
				t.Errorf("waited %v", waited)
			}
			start = time.Now()
			c.Close()
		})
		if !errors.Is(err, net.ErrClosed) || len(taken) != 1 {
			t.Errorf("%v after %d connections", err, len(taken))
		}
		if waited := time.Since(start); waited != 5*time.Millisecond {
			t.Errorf("after a success it waited %v", waited)
		}
		if n := strings.Count(log.String(), "cannot accept"); n != 1 {
			t.Errorf("%d warnings", n)
		}
	})
}

func TestAcceptStopsWaitingWhenStopped(t *testing.T) {
	answers, stop := make(chan any, 1), make(chan struct{})
	answers <- error(syscall.EMFILE)
	done := make(chan error, 1)
	go func() { done <- Accept(script{nil, answers}, stop, hclog.NewNullLogger(), func(net.Conn) {}) }()
	close(stop)
	select {
	case err := <-done:
		if !errors.Is(err, syscall.EMFILE) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("still waiting")
	}
}

func TestAcceptReturnsPermanentErrors(t *testing.T) {
	answers := make(chan any, 1)
	answers <- error(syscall.EBADF)
	if err := Accept(script{nil, answers}, nil, hclog.NewNullLogger(), func(net.Conn) {}); !errors.Is(err, syscall.EBADF) {
		t.Error(err)
	}
}
