package livestate

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// format is the format of the encoding. New fields do not need another format, because
// every version ignores fields that it does not know. A field whose meaning changes
// needs another format: a version ignores the whole state if it has another format.
const format = 1

// maxSessionBytes bounds the size of the TLS sessions that are passed on. Without it,
// thousands of endpoints would delay the upgrade.
const maxSessionBytes = 8 << 20

type state struct {
	Format    int             `json:"format"`
	Upstreams []upstreamState `json:"upstreams,omitempty"`
	Listeners []listenerState `json:"listeners,omitempty"`
}

type upstreamState struct {
	Name     string `json:"name"`
	Identity string `json:"identity"` // snapshot.Upstream.Identity
	upstream.State
}

type listenerState struct {
	Name     string      `json:"name"`
	Protocol string      `json:"protocol"`
	Spent    limit.State `json:"spent"`
}

// Take returns the state of the live upstreams and of the listeners. It removes TLS
// tickets from the upstreams, because each may be used only once: if the upgrade then
// fails, their next handshakes are full. The state is a secret.
func Take(live *snapshot.Snapshot, set *listeners.Set) ([]byte, error) {
	s := state{Format: format}
	left := maxSessionBytes
	for _, u := range live.Upstreams() {
		identity := u.Identity()
		if identity == "" {
			continue
		}
		one := upstreamState{Name: u.Name, Identity: identity}
		if one.State, left = u.Live.TakeState(left); len(one.Endpoints) > 0 {
			s.Upstreams = append(s.Upstreams, one)
		}
	}
	now := time.Now()
	set.EachLimiter(func(name string, p adminv1.Protocol, l *limit.Limiter) {
		if spent := l.State(now); !spent.IsZero() {
			s.Listeners = append(s.Listeners, listenerState{name, p.String(), spent})
		}
	})
	return json.Marshal(s)
}

// Adopted counts what Adopt applied.
type Adopted struct {
	Upstreams, Endpoints, Listeners int

	// Dropped are the upstreams and listeners whose state was not applied, because they
	// are not live here or have other settings.
	Dropped []string
}

// Adopt applies the state that Take returned in another process. It must be called before
// the listeners accept connections.
func Adopt(text []byte, live *snapshot.Snapshot, set *listeners.Set) (a Adopted, err error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return a, err
	}
	if head.Format != format {
		return a, fmt.Errorf("the state has format %d, and this version reads format %d", head.Format, format)
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return a, err
	}
	for _, one := range s.Upstreams {
		u, ok := live.Upstream(one.Name)
		if !ok || one.Identity == "" || u.Identity() != one.Identity {
			a.Dropped = append(a.Dropped, "upstream "+one.Name)
			continue
		}
		u.Live.Adopt(one.State)
		a.Upstreams, a.Endpoints = a.Upstreams+1, a.Endpoints+len(one.Endpoints)
	}
	limiters := map[string]*limit.Limiter{}
	key := func(name, protocol string) string { return protocol + " " + name }
	set.EachLimiter(func(name string, p adminv1.Protocol, l *limit.Limiter) { limiters[key(name, p.String())] = l })
	now := time.Now()
	for _, one := range s.Listeners {
		l := limiters[key(one.Name, one.Protocol)]
		if l == nil {
			a.Dropped = append(a.Dropped, "listener "+one.Name)
			continue
		}
		l.Adopt(one.Spent, now)
		a.Listeners++
	}
	return a, nil
}
