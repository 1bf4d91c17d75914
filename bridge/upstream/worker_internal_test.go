package upstream

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A panicLog is a log in which a test looks for panics.
type panicLog struct{ logtest.Buffer }

func (l *panicLog) logger() hclog.Logger { return hclog.New(&hclog.LoggerOptions{Output: l}) }

// want checks that a panic was logged with its stack.
func (l *panicLog) want(t *testing.T, cause string) {
	t.Helper()
	for _, part := range []string{"panic recovered", cause, "worker_internal_test.go"} {
		if !strings.Contains(l.String(), part) {
			t.Errorf("%q is not in the log: %s", part, l.String())
		}
	}
}

// A worker restarts work that panicked after a pause, and lets it clean up at
// the end.
func TestAWorkerContinuesAfterAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log panicLog
		var w worker
		calls, cleaned := 0, false
		ctx, _ := w.begin()
		w.run(ctx, log.logger(), "test", func(ctx context.Context) {
			if ctx.Err() != nil {
				cleaned = true
				return
			}
			calls++
			panic("boom")
		})
		time.Sleep(10 * time.Minute)
		w.end()
		w.wait()
		if calls < 5 || calls > 30 || !cleaned {
			t.Errorf("called %d times in 10 minutes, cleaned up: %v", calls, cleaned)
		}
		if _, ok := w.begin(); ok {
			t.Error("the worker began again after its end")
		}
		log.want(t, "boom")
	})
}

// A health check that panics counts as failed, and the next one runs.
func TestAPanicOfAHealthCheckIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log panicLog
		var panics atomic.Bool
		panics.Store(true)
		u := New(Options{
			Name: "up", Logger: log.logger(), Endpoints: []EndpointOptions{{Network: "tcp", Address: "a:1"}},
			Check: CheckOptions{Interval: time.Second, Check: func(context.Context, *Endpoint) error {
				if panics.Load() {
					panic("boom")
				}
				return nil
			}},
		})
		u.Start()
		defer u.Retire()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := u.Status()[0]; s.Available || s.Check.Failures < 5 || s.Check.Reason != certs.ReasonOther || !strings.Contains(s.Check.Message, "panicked: boom") {
			t.Errorf("%+v", s.Check)
		}
		log.want(t, "boom")
		panics.Store(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := u.Status()[0]; !s.Available {
			t.Errorf("the endpoint does not become healthy again: %s", s.Unavailable)
		}
	})
}

// A panickingResolver panics for some lookups.
type panickingResolver struct{ panics atomic.Bool }

func (p *panickingResolver) Ask(context.Context) (resolve.Answer, error) {
	if p.panics.Load() {
		panic("boom")
	}
	return resolve.Answer{}, nil
}
func (p *panickingResolver) Last() resolve.Answer { return resolve.Answer{} }
func (p *panickingResolver) Adopt(resolve.Answer) {}

func TestAPanicOfALookupIsAFailedLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log panicLog
		names := new(panickingResolver)
		names.panics.Store(true)
		u := New(Options{Name: "up", Logger: log.logger(), DNS: &DNSOptions{Resolver: names}})
		u.Start()
		defer u.Retire()
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := u.DNS(); s.Failed < 3 || !strings.Contains(s.Error, "panicked: boom") {
			t.Errorf("%+v", s)
		}
		log.want(t, "boom")
		names.panics.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := u.DNS(); s.Error != "" {
			t.Errorf("%+v", s)
		}
	})
}

// A warm pool continues after a panic in any of its steps, and leaves no
// connection open.
func TestAWarmPoolContinuesAfterAPanic(t *testing.T) {
	for _, where := range []string{"dial", "look"} {
		t.Run(where, func(t *testing.T) {
			within(t, 4, 0, func(t *testing.T, m *mock) {
				var log panicLog
				m.log = log.logger()
				var panics atomic.Bool
				panics.Store(true)
				dial, look := m.dial, m.look
				m.dial = func(ctx context.Context, holder Holder) (net.Conn, error) {
					if panics.Load() && where == "dial" {
						panic("boom")
					}
					return dial(ctx, holder)
				}
				m.look = func(c net.Conn) (bool, error) {
					if panics.Load() && where == "look" {
						panic("boom")
					}
					return look(c)
				}
				m.start()
				time.Sleep(time.Minute)
				synctest.Wait()
				log.want(t, "boom")
				panics.Store(false)
				time.Sleep(2 * time.Minute)
				if ready, _ := m.count(); ready != 4 {
					t.Errorf("%d ready once nothing panics", ready)
				}
			})
		})
	}
}
