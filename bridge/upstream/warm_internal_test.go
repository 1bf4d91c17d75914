package upstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A mock is the endpoint of a warmPool. Its connections only have a state.
type mock struct {
	*warmPool

	mu          sync.Mutex
	takes       time.Duration // duration of a dial
	fails       error         // the error of a dial; the endpoint is then down
	replyNeeded bool          // a handshake does not show that the endpoint is up
	isDown      bool
	isScarce    bool
	dials       int
	dialing     int
	most        int // maximum number of concurrent dials
	made        []*mockConn
	lives       time.Duration // how long the peer keeps a connection open; 0: forever
	received    bool          // the results of look
	found       []error       // errors passed to lost
}

type mockConn struct {
	net.Conn
	mock   *mock
	retire func()
	made   time.Time
	err    error
	closed bool
}

func (c *mockConn) Close() error {
	c.mock.mu.Lock()
	defer c.mock.mu.Unlock()
	c.closed = true
	return nil
}

func newMock(size int, maxAge time.Duration, filling chan struct{}) *mock {
	m := &mock{warmPool: newWarmPool(size, maxAge, filling), takes: time.Millisecond}
	m.warmPool.dial = m.dialOne
	m.warmPool.look = func(conn net.Conn) (bool, error) {
		c := conn.(*mockConn)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.lives > 0 && time.Since(c.made) >= m.lives {
			return false, errTruncated
		}
		return m.received, c.err
	}
	m.warmPool.down = func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.isDown }
	m.warmPool.scarce = func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.isScarce }
	m.warmPool.replied = func() { m.set(func() { m.replyNeeded, m.isDown = false, false }) }
	m.warmPool.lost = func(err error) {
		m.set(func() {
			m.found = append(m.found, err)
			if certs.IsAlert(err) {
				m.replyNeeded, m.isDown = true, true
			}
		})
	}
	return m
}

func (m *mock) dialOne(ctx context.Context, holder Holder) (net.Conn, error) {
	var takes time.Duration
	m.set(func() {
		m.dials, m.dialing, takes = m.dials+1, m.dialing+1, m.takes
		m.most = max(m.most, m.dialing)
	})
	defer m.set(func() { m.dialing-- })
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails != nil {
		m.isDown = true
		return nil, m.fails
	}
	m.isDown = m.isDown && m.replyNeeded
	c := &mockConn{mock: m, retire: holder.Retire, made: time.Now()}
	m.made = append(m.made, c)
	return c, nil
}

func (m *mock) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// count waits until the pool is idle, and returns the number of ready
// connections and of dials since the last count.
func (m *mock) count() (ready, dials int) {
	synctest.Wait()
	m.warmPool.mu.Lock()
	ready = len(m.ready)
	m.warmPool.mu.Unlock()
	m.set(func() { dials, m.dials = m.dials, 0 })
	return ready, dials
}

func (m *mock) nowDown() (down bool) { m.set(func() { down = m.isDown }); return down }

func (m *mock) mostAtOnce() (n int) { m.set(func() { n = m.most }); return n }

// open returns the number of open connections.
func (m *mock) open() int {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, c := range m.made {
		if !c.closed {
			n++
		}
	}
	return n
}

// within runs a test of a mock in a bubble, and retires it.
func within(t *testing.T, size int, maxAge time.Duration, test func(*testing.T, *mock)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMock(size, maxAge, nil)
		test(t, m)
		m.end()
		m.wait()
		for _, c := range m.made {
			if taken := c.err == errTaken; !c.closed && !taken {
				t.Errorf("a connection made at %v is left open", c.made)
			}
		}
	})
}

// errTaken marks connections that the test has taken.
var errTaken = errors.New("taken")

func (m *mock) taken() *mockConn {
	c, _ := m.take().(*mockConn)
	if c != nil {
		m.set(func() { c.err = errTaken })
	}
	return c
}

func TestWarmConnectionsAreMadeAFewAtATime(t *testing.T) {
	within(t, 10, 0, func(t *testing.T, m *mock) {
		time.Sleep(time.Hour)
		if _, dials := m.count(); dials != 0 {
			t.Fatalf("dialed %d times before the start", dials)
		}
		m.start()
		m.start()
		time.Sleep(10 * time.Millisecond)
		if ready, dials := m.count(); ready != 10 || dials != 10 || m.mostAtOnce() != 8 {
			t.Errorf("%d ready, dialed %d times, %d at once", ready, dials, m.mostAtOnce())
		}
		first := m.made[0]
		if c := m.taken(); c != first {
			t.Error("the connection taken was not the oldest")
		}
		time.Sleep(quietTime / 2) // the client of the taken connection is being served
		if ready, dials := m.count(); ready != 9 || dials != 0 {
			t.Errorf("at once after one was taken: %d ready, dialed %d times", ready, dials)
		}
		time.Sleep(quietTime)
		if ready, dials := m.count(); ready != 10 || dials != 1 {
			t.Errorf("after one was taken: %d ready, dialed %d times", ready, dials)
		}
		if s := m.status(); *s != (Warm{Size: 10, Ready: 10, Used: 1}) {
			t.Errorf("%+v", s)
		}
	})
}

// While plenty are ready, taken connections are replaced in batches; otherwise
// at once.
func TestWarmConnectionsAreReplacedInBatchesWhilePlentyAreReady(t *testing.T) {
	within(t, 40, 0, func(t *testing.T, m *mock) {
		m.start()
		time.Sleep(time.Second)
		for _, test := range []struct {
			taken int
			every time.Duration
			after time.Duration // time until the replacement
			most  int           // maximum number of concurrent dials
		}{
			{1, 0, quietTime, 1},
			{9, quietTime / 2, longestQuietTime, 1}, // clients arrive ever faster
			{mostShort, 0, 0, 1},
			{21, 0, 0, maxFills},
		} {
			m.count()
			m.set(func() { m.most = 0 })
			begin := time.Now()
			for range test.taken {
				time.Sleep(test.every)
				m.taken()
			}
			first := time.Duration(0)
			for ; ; time.Sleep(time.Millisecond) {
				synctest.Wait()
				if _, dials := m.count(); dials > 0 {
					first = time.Since(begin)
					break
				}
			}
			time.Sleep(time.Second)
			ready, _ := m.count()
			if ready != 40 || m.mostAtOnce() != test.most || first < test.after || first > test.after+quietTime {
				t.Errorf("%d taken, one every %v: replaced after %v, %d at once, %d ready", test.taken, test.every, first, m.mostAtOnce(), ready)
			}
		}
	})
}

// A connection that is being dialed still counts as missing. Once more than
// half are missing, several are dialed at once.
func TestAConnectionThatIsBeingMadeCountsAsMissing(t *testing.T) {
	within(t, 40, 0, func(t *testing.T, m *mock) {
		m.start()
		time.Sleep(time.Second)
		m.set(func() { m.takes = time.Minute })
		for range 20 {
			m.taken()
		}
		synctest.Wait() // one dial is in progress, because plenty of connections are left
		if m.set(func() { m.most = 0 }); m.dialing != 1 {
			t.Fatalf("%d are being made", m.dialing)
		}
		m.taken()
		synctest.Wait()
		if n := m.mostAtOnce(); n != maxFills {
			t.Errorf("%d are being made with 21 of 40 missing, want %d", n, maxFills)
		}
	})
}

// The first connection to an endpoint is dialed alone.
func TestTheFirstWarmConnectionIsDialedAlone(t *testing.T) {
	within(t, 10, 0, func(t *testing.T, m *mock) {
		m.takes = time.Second
		m.start()
		time.Sleep(time.Second / 2)
		if _, dials := m.count(); dials != 1 {
			t.Errorf("dialed %d times", dials)
		}
		time.Sleep(time.Second)
		if _, dials := m.count(); dials != maxFills {
			t.Errorf("then dialed %d times", dials)
		}
		time.Sleep(10 * time.Second)
	})
}

func TestUpstreamsShareABoundOnWarmConnectionsBeingMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		filling := make(chan struct{}, 3)
		var all []*mock
		for range 5 {
			m := newMock(4, 0, filling)
			m.takes = time.Second
			all = append(all, m)
			m.start()
		}
		time.Sleep(6*time.Second + time.Second/2) // 20 connections at 3 per second
		ready := 0
		for _, m := range all {
			n, _ := m.count()
			ready += n
		}
		if ready != 18 {
			t.Errorf("%d are ready", ready)
		}
		for _, m := range all {
			m.end()
			m.wait()
			if m.open() != 0 {
				t.Error("a connection is left open")
			}
		}
	})
}

func TestWarmConnectionsAreReplacedBeforeTheyExpire(t *testing.T) {
	const age = 40 * time.Second
	within(t, 5, age, func(t *testing.T, m *mock) {
		m.start()
		for range 1000 {
			time.Sleep(time.Second)
			synctest.Wait()
			if c := m.taken(); time.Since(c.made) >= age {
				t.Fatalf("given out %v after it was made", time.Since(c.made))
			}
			time.Sleep(59 * time.Second)
		}
		s := m.status()
		if s.Used != 1000 || s.Missed != 0 || s.Closed != 0 || s.Expired < 5*1000 || s.Expired > 8*1000 {
			t.Errorf("%+v", s)
		}
		// The connection is too old, and the worker has not removed it yet.
		m.warmPool.mu.Lock()
		for _, c := range m.ready {
			c.end = time.Now()
		}
		m.warmPool.mu.Unlock()
		if m.taken() != nil {
			t.Error("a connection that is too old was handed out")
		}
	})
}

// The pool does not replace waiting connections as fast as a server can close
// them.
func TestClosedWarmConnectionsAreNotRedialedInALoop(t *testing.T) {
	for name, test := range map[string]struct {
		set         func(*mock)
		mostDials   int // maximum dials in an hour
		fewestDials int
	}{
		"closed at once":            {func(m *mock) { m.lives = time.Nanosecond }, 8 * 75, 8 * 45},
		"closed after 1s":           {func(m *mock) { m.lives = time.Second }, 8 * 75, 8 * 45},
		"closed after 10s":          {func(m *mock) { m.lives = 10 * time.Second }, 8 * 75, 8 * 40},
		"cannot be made":            {func(m *mock) { m.fails = errors.New("refused") }, 150, 100},
		"takes a minute":            {func(m *mock) { m.fails, m.takes = errors.New("timeout"), time.Minute }, 60, 30},
		"every connection succeeds": {func(*mock) {}, 8 * 85, 8 * 70},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, 8, 0, func(t *testing.T, m *mock) {
				test.set(m)
				m.start()
				time.Sleep(time.Hour)
				if _, dials := m.count(); dials > test.mostDials || dials < test.fewestDials {
					t.Errorf("dialed %d times in an hour, want %d to %d", dials, test.fewestDials, test.mostDials)
				}
			})
		})
	}
}

// With a server that closes connections that wait for a second, and clients
// that arrive more often, clients still get warm connections.
func TestWarmConnectionsThatAreUsedInTimeAreReplacedAtOnce(t *testing.T) {
	within(t, 4, 0, func(t *testing.T, m *mock) {
		m.lives = time.Second
		m.start()
		time.Sleep(time.Second / 2)
		for range 1000 {
			time.Sleep(time.Second / 10)
			synctest.Wait()
			m.taken()
		}
		if s := m.status(); s.Used < 990 || s.Closed > 20 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAnEndpointThatIsDownHasNoWarmConnections(t *testing.T) {
	within(t, 6, 0, func(t *testing.T, m *mock) {
		m.start()
		time.Sleep(time.Second)
		m.set(func() { m.isDown, m.fails = true, errors.New("refused") })
		m.signal()
		if m.taken() != nil {
			t.Error("a connection to an endpoint that is down was given out")
		}
		if ready, _ := m.count(); ready != 0 || m.open() != 0 {
			t.Errorf("%d ready, %d open", ready, m.open())
		}
		time.Sleep(time.Hour)
		if open := m.open(); m.mostAtOnce() > maxFills || open != 0 {
			t.Errorf("%d dials at once, %d open", m.mostAtOnce(), open)
		}
		m.count()
		m.set(func() { m.most = 0 })
		time.Sleep(10 * time.Minute)
		if _, dials := m.count(); m.mostAtOnce() != 1 || dials < 10 {
			t.Errorf("while down: %d dials, %d at once", dials, m.mostAtOnce())
		}

		// Other traffic finds that the endpoint is up.
		m.set(func() { m.isDown, m.fails = false, nil })
		m.signal()
		time.Sleep(2 * time.Second)
		if ready, _ := m.count(); ready != 6 {
			t.Errorf("once it was up: %d ready", ready)
		}

		// The pool detects that the endpoint is up.
		m.set(func() { m.isDown, m.fails = true, errors.New("refused") })
		time.Sleep(time.Hour)
		m.set(func() { m.fails = nil })
		time.Sleep(time.Minute)
		if ready, _ := m.count(); ready != 6 || m.nowDown() {
			t.Errorf("without other traffic: %d ready, down: %v", ready, m.nowDown())
		}
	})
}

// Retries of failed attempts are slow, even if other traffic succeeds in
// between.
func TestAFlappingEndpointIsRetriedSlowly(t *testing.T) {
	within(t, 6, 0, func(t *testing.T, m *mock) {
		m.fails = errors.New("refused")
		m.start()
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			m.set(func() { m.isDown = false })
			m.signal()
		}
		if _, dials := m.count(); dials > 20*maxFills+1 {
			t.Errorf("dialed %d times in 10s", dials)
		}
	})
}

// After a late rejection, only data from the server shows that it accepts us
// again.
func TestAfterALateRefusalAConnectionIsTriedFirst(t *testing.T) {
	refusal := &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	within(t, 6, 0, func(t *testing.T, m *mock) {
		m.start()
		time.Sleep(time.Second / 2)
		m.set(func() {
			for _, c := range m.made {
				c.err = refusal
			}
		})
		time.Sleep(time.Second)
		if ready, dials := m.count(); ready != 0 || !m.nowDown() || len(m.found) != 6 || dials > 7 {
			t.Fatalf("%d ready, down %v, found %v, dialed %d times", ready, m.nowDown(), m.found, dials)
		}
		time.Sleep(time.Hour)
		if ready, dials := m.count(); ready != 0 || m.open() > 1 || dials > 150 || dials < 50 {
			t.Errorf("silent: %d ready, %d open, dialed %d times", ready, m.open(), dials)
		}
		m.set(func() { m.received = true })
		time.Sleep(time.Minute)
		if ready, _ := m.count(); ready != 6 || m.nowDown() {
			t.Errorf("heard: %d ready, down %v", ready, m.nowDown())
		}
	})
}

func TestDrainedConnectionsLeaveThePool(t *testing.T) {
	within(t, 3, 0, func(t *testing.T, m *mock) {
		m.start()
		time.Sleep(time.Second)
		used := m.taken()
		synctest.Wait()
		for _, c := range m.made {
			c.retire()
		}
		if used.closed {
			t.Error("a connection was closed that is in use")
		}
		if ready, _ := m.count(); ready != 0 || m.open() != 1 {
			t.Errorf("%d ready, %d open", ready, m.open())
		}
		time.Sleep(3 * time.Second)
		if ready, _ := m.count(); ready != 3 {
			t.Errorf("%d ready", ready)
		}
	})
	t.Run("while connections are dialed", func(t *testing.T) {
		within(t, 1, 0, func(t *testing.T, m *mock) {
			dial, drained := m.dial, false
			m.dial = func(ctx context.Context, holder Holder) (net.Conn, error) {
				if !drained {
					drained = true
					holder.Retire()
				}
				return dial(ctx, holder)
			}
			m.start()
			time.Sleep(time.Second)
			if ready, dials := m.count(); ready != 1 || dials != 2 || m.open() != 1 {
				t.Errorf("%d ready, dialed %d times, %d open", ready, dials, m.open())
			}
		})
	})
}

// While clients wait for descriptors, the pool takes none.
func TestNoWarmConnectionIsMadeWhileDescriptorsAreScarce(t *testing.T) {
	within(t, 4, 0, func(t *testing.T, m *mock) {
		m.isScarce = true
		m.start()
		time.Sleep(time.Hour)
		if _, dials := m.count(); dials != 0 {
			t.Errorf("dialed %d times", dials)
		}
		m.set(func() { m.isScarce = false })
		time.Sleep(2 * time.Second)
		if ready, _ := m.count(); ready != 4 {
			t.Errorf("%d ready", ready)
		}
	})
}

func TestARetiredPoolKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMock(4, 0, nil)
		m.takes = time.Second
		m.start()
		time.Sleep(2500 * time.Millisecond)
		m.set(func() { m.lives = time.Second })
		m.signal() // some connections are ready, and some of these are dead
		time.Sleep(time.Second / 2)
		m.end()
		m.wait()
		m.start()
		if m.open() != 0 || m.take() != nil {
			t.Errorf("%d left open", m.open())
		}
		m.count()
		time.Sleep(time.Hour)
		if _, dials := m.count(); dials != 0 {
			t.Errorf("dialed %d times", dials)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		m := newMock(4, 0, nil)
		m.end()
		m.wait()
		m.start()
		time.Sleep(time.Hour)
		if _, dials := m.count(); dials != 0 {
			t.Errorf("retired before it was started, it dialed %d times", dials)
		}
	})
}
