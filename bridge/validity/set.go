package validity

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// checkInterval is how often a Set compares the wall clock with the end of its peers'
// validity. A longer timer would miss a clock that is set.
const checkInterval = time.Second

// Options configure a Set.
type Options struct {
	// Observe receives the findings, on a goroutine of the Set. Nil: findings are
	// only logged and counted.
	Observe func(Finding)

	// Now returns the current time. Nil means time.Now.
	Now func() time.Time

	Logger hclog.Logger // nil discards
}

// A Set verifies the peers of the live connections of one listener or upstream
// again. The zero Set is not usable; New returns one. A Set needs no Close: without
// members it runs no timer and no goroutine. All methods may be called concurrently.
type Set struct {
	o      Options
	policy atomic.Pointer[Policy]
	counts counts

	mu          sync.Mutex
	members     map[*Member]struct{}
	failed      []*Member   // members to end
	working     bool        // a goroutine verifies or ends members
	mustRecheck bool        // the policy has changed or a validity has ended: the goroutine verifies all members
	timer       *time.Timer // nil until the first member
	ticking     bool
	next        time.Time // the earliest moment at which a peer may stop passing
}

// New returns a Set without members, in which every peer passes.
func New(o Options) *Set {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return &Set{
		o: o, members: make(map[*Member]struct{}), next: distant,
		counts: counts{total: make(map[finding]uint64), fresh: make(map[finding]*Finding)},
	}
}

// distant is later than the end of any certificate.
var distant = time.Unix(1<<60, 0)

// Policy returns the policy in force. Nil means that every peer passes.
func (s *Set) Policy() *Policy { return s.policy.Load() }

// Require puts a policy in force. The Set verifies its peers under it in the
// background; Check does so at once.
func (s *Set) Require(p *Policy) {
	if s.policy.Swap(p) == p {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustRecheck = true
	s.workLocked()
}

// Add adds a connection, whose peer passed in its handshake.
func (s *Set) Add(m *Member, p *certs.Peer, owner Owner) {
	m.set, m.peer, m.owner = s, p, owner
	s.mu.Lock()
	s.members[m] = struct{}{}
	s.mu.Unlock()
	// Verify under the policy in force now, because it may have changed since the
	// handshake.
	v := s.reverify(m, s.policy.Load(), nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.failure == nil {
		s.expectLocked(v.until)
	}
	s.tickLocked()
}

// Remove removes a connection that has ended. Removing one that was never added
// has no effect.
func (s *Set) Remove(m *Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.members, m)
}

// reverify verifies a member again and records the verdict. memo, which may be nil, holds
// the verdicts about other peers under the same policy.
func (s *Set) reverify(m *Member, p *Policy, memo map[certs.PeerKey]*verdict) *verdict {
	var v *verdict
	var key certs.PeerKey
	if memo != nil {
		key = m.peer.Key()
		v = memo[key]
	}
	if v == nil {
		v = &verdict{policy: p, until: distant}
		if p != nil && p.Verifier != nil {
			v.until, v.failure = p.Verifier.Reverify(m.peer)
		}
		if memo != nil {
			memo[key] = v
		}
	}
	before := m.verdict.Swap(v)
	if v.failure != nil {
		s.fail(m, v, before)
	}
	return v
}

// fail counts a failure and ends the connection, once.
func (s *Set) fail(m *Member, v, before *verdict) {
	ends := v.policy.ends(v.failure)
	switch {
	case ends && !m.ended.CompareAndSwap(nil, v):
		return
	case !ends && before != nil && before.failure != nil && before.failure.Reason == v.failure.Reason:
		return // already reported
	}
	s.counts.add(v.failure, ends)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ends {
		s.failed = append(s.failed, m)
	}
	s.workLocked()
}

// expectLocked records that a peer passes only until a time.
func (s *Set) expectLocked(until time.Time) {
	if until.Before(s.next) {
		s.next = until
	}
}

// tickLocked starts the timer if members need it.
func (s *Set) tickLocked() {
	if s.ticking || len(s.members) == 0 || s.next.Equal(distant) {
		return
	}
	s.ticking = true
	if s.timer == nil {
		s.timer = time.AfterFunc(checkInterval, s.checkTime)
	} else {
		s.timer.Reset(checkInterval)
	}
}

// checkTime starts to verify all members if the validity of a peer has ended.
func (s *Set) checkTime() {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticking = false
	if now.After(s.next) {
		s.mustRecheck = true
		s.workLocked()
	}
	s.tickLocked()
}

// workLocked starts the goroutine that verifies and ends members, unless it is
// already running.
func (s *Set) workLocked() {
	if s.working {
		return
	}
	s.working = true
	go s.work()
}

// work verifies and ends members until task returns no more.
func (s *Set) work() {
	for {
		all, failed, more := s.task()
		if !more {
			return
		}
		s.protect(func() { s.reverifyAll(all) })
		s.end(failed)
	}
}

// task returns the members to verify again, and those to end. more is false if no work
// is left.
func (s *Set) task() (all, failed []*Member, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mustRecheck {
		s.mustRecheck, s.next = false, distant
		all = make([]*Member, 0, len(s.members))
		for m := range s.members {
			all = append(all, m)
		}
	}
	failed, s.failed = s.failed, nil
	if s.working = len(all) > 0 || len(failed) > 0 || s.counts.pending(); !s.working {
		s.tickLocked()
	}
	return all, failed, s.working
}

// reverifyAll verifies every member again whose verdict is not current.
func (s *Set) reverifyAll(all []*Member) {
	memo := make(map[certs.PeerKey]*verdict)
	next, now := distant, s.o.Now()
	var memoOf *Policy
	for _, m := range all {
		p, v := s.policy.Load(), m.verdict.Load()
		if !v.isCurrent(p, now) {
			if p != memoOf || len(memo) > maxMemo {
				clear(memo)
				memoOf = p
			}
			v = s.reverify(m, p, memo)
		}
		if v.failure == nil && v.until.Before(next) {
			next = v.until
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expectLocked(next)
}

// maxMemo bounds the verdicts that one run shares.
const maxMemo = 1 << 16

// end makes owners end their connections, and reports the findings.
func (s *Set) end(failed []*Member) {
	for _, m := range failed {
		v := m.ended.Load()
		s.protect(func() { m.owner.EndWithin(v.policy.grace(), v.failure) })
	}
	for _, f := range s.counts.take() {
		s.log(f)
		if s.o.Observe != nil {
			s.protect(func() { s.o.Observe(f) })
		}
	}
}

func (s *Set) log(f Finding) {
	s.o.Logger.Warn("peers of open connections no longer verify", "connections", f.Count, "reason", string(f.Reason), "ended", f.Ended, "error", f.Detail)
}

// protect runs f and logs a panic: a panic of one owner must not keep the others
// from ending.
func (s *Set) protect(f func()) {
	defer func() {
		if p := recover(); p != nil {
			s.o.Logger.Error("panic while verifying connections", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
}
