package listeners

import (
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
)

// Commit serves the prepared sockets and drains removed listeners. When it returns, no
// connection is accepted for a removed listener, and its address is free. live is the
// snapshot that was passed to Prepare; it must already be live.
func (s *Set) Commit(p *Prepared, live *snapshot.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range p.kept {
		now := live.Listener(r.Name)
		r.configured, r.address = now.Configured, now.Address
		s.permit(r, now.Unix)
		r.server().Revalidate()
	}
	passed := map[*Running]bool{}
	for _, b := range p.bound {
		switch {
		case b.from != nil:
			b.from.socket.passTo(b.socket)
			passed[b.from] = true
			wanted := b.unix
			b.unix = b.from.unix
			s.permit(b.Running, wanted)
		case b.overlap != nil:
			if err := b.overlap.listen(); err != nil {
				s.o.Logger.Error("listener failed", "listener", b.Name, "error", err)
			}
		}
		if b.from == nil {
			s.o.Sockets.Keep(b.socket.listener, owner(b.Name), b.address)
		}
		s.running[b.Name] = b.Running
		b.server().Revalidate()
		s.serve(b.Running)
		s.o.Logger.Info("listener up", "listener", b.Name, "address", b.socket.Addr().String())
	}
	for name, r := range p.going {
		if s.running[name] == r {
			delete(s.running, name)
		}
		if !passed[r] {
			s.o.Sockets.Remove(r.socket.listener)
			r.socket.Close()
		}
		s.retire(r)
	}
	for _, b := range p.bound {
		if b.overlap != nil {
			b.overlap.unshare()
		}
	}
	for name, reason := range p.down {
		if s.down[name] != reason {
			s.o.Logger.Error("listener down", "listener", name, "error", reason)
		}
	}
	s.down, s.served = p.down, live
	s.countSockets()
}

// permit changes which users may connect to an existing unix socket. The group was
// checked before, so this fails only if the file was removed in the meantime.
func (s *Set) permit(r *Running, o unixsocket.Options) {
	l, ok := r.socket.listener.(*unixsocket.Listener)
	if !ok || r.unix == o {
		return
	}
	if err := l.Permit(o); err != nil {
		s.o.Logger.Error("cannot change the permissions of a socket", "listener", r.Name, "error", err)
		return
	}
	r.unix = o
}
