package intake_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A recorder counts the calls that end it.
type recorder struct {
	intake.Conn
	drains int
	cuts   chan error
}

func (r *recorder) Drain()            { r.drains++ }
func (r *recorder) Cut(cause error)   { r.cuts <- cause }
func (r *recorder) Work() (int, bool) { return 0, true }

func (r *recorder) Describe(*live.Connection) {}

// The Intake drains a client that no longer verifies, and cuts it after the grace period
// unless its connection has ended by then. Without a grace period it cuts the client at
// once.
func TestAConnectionEndsWithinItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := intake.New(intake.Options{Logger: hclog.NewNullLogger()})
		enter := func() *recorder {
			r := &recorder{cuts: make(chan error, 10)}
			raw, _ := net.Pipe()
			if !s.Enter(&r.Conn, raw, &intake.Rules{}, r) {
				t.Fatal("the connection was refused")
			}
			return r
		}
		cause := &certs.VerifyError{Reason: certs.ReasonRevoked}
		stays, leaves, left, atOnce := enter(), enter(), enter(), enter()
		s.Leave(&left.Conn)
		for _, r := range []*recorder{stays, leaves, left} {
			r.EndWithin(time.Minute, cause)
		}
		atOnce.EndWithin(0, cause)
		if atOnce.drains != 0 || len(atOnce.cuts) != 1 {
			t.Errorf("without grace: %d drains and %d cuts", atOnce.drains, len(atOnce.cuts))
		}
		s.Leave(&leaves.Conn)
		time.Sleep(time.Minute - time.Nanosecond)
		if stays.drains != 1 || len(stays.cuts) != 0 {
			t.Errorf("within the grace: %d drains and %d cuts", stays.drains, len(stays.cuts))
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if len(stays.cuts) != 1 {
			t.Fatalf("after the grace: %d cuts", len(stays.cuts))
		}
		if got := <-stays.cuts; got != cause {
			t.Errorf("the cause is %v", got)
		}
		if len(leaves.cuts)+len(left.cuts) != 0 {
			t.Error("a closed connection was cut")
		}
		for _, r := range []*recorder{stays, leaves, left, atOnce} {
			s.Done()
			if r == stays || r == atOnce {
				s.Leave(&r.Conn)
			}
		}
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// If a connection is closed twice, the earlier deadline and its cause apply.
func TestTheEarlierEndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := intake.New(intake.Options{Logger: hclog.NewNullLogger()})
		revoked := &certs.VerifyError{Reason: certs.ReasonRevoked}
		for _, c := range []struct {
			first, second time.Duration // the grace periods of the policy and of the operator
			want          error
		}{{time.Minute, time.Hour, revoked}, {time.Hour, time.Minute, live.ErrClosed}} {
			r := &recorder{cuts: make(chan error, 10)}
			raw, _ := net.Pipe()
			if !s.Enter(&r.Conn, raw, &intake.Rules{}, r) {
				t.Fatal("the connection was refused")
			}
			r.EndWithin(c.first, revoked)
			r.Close(c.second)
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if len(r.cuts) != 1 {
				t.Errorf("graces of %v and %v: %d cuts", c.first, c.second, len(r.cuts))
			}
			if got := <-r.cuts; got != c.want {
				t.Errorf("graces of %v and %v: the cause is %v", c.first, c.second, got)
			}
			s.Done()
			s.Leave(&r.Conn)
		}
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
