package tickets

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// A Key encrypts session tickets. Its fields are those of its JSON, which the process of
// an older or newer version reads.
type Key struct {
	Key  [32]byte
	Made time.Time
}

// Format prints no part of the key.
func (Key) Format(f fmt.State, _ rune) { io.WriteString(f, "ticket key") }

// Options configure Keys.
type Options struct {
	// Now returns the time at which keys are made and expire.
	Now func() time.Time

	// Own are the keys of the process to begin with, the newest first. May be nil.
	Own []Key

	// Shared holds secrets of a fleet. While one of them has not expired, the keys that
	// are derived from them encrypt, and own keys only decrypt. Nil: only own keys.
	Shared *Shared

	// Identity returns what identifies the policy: two policies with different identities
	// have different keys. It is called only if there are shared secrets.
	Identity func() string
}

// Keys are the ticket keys of one TLS policy. They may be used concurrently. crypto/tls
// would rotate keys itself, but does not reveal them, so another process could not get
// them.
type Keys struct {
	o      Options
	config *tls.Config // contains only the keys

	mu       sync.Mutex
	own      []Key // the newest first; guarded by mu
	identity string
	from     *List     // the shared secrets of config; guarded by mu
	set      time.Time // when the keys of config were set; guarded by mu
	until    time.Time // when they must be set again; guarded by mu
}

// New returns Keys.
func New(o Options) *Keys {
	return &Keys{o: o, own: o.Own, config: &tls.Config{Time: o.Now}}
}

// Config returns a config that has the current keys, to encrypt and decrypt tickets.
func (k *Keys) Config() *tls.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, shared := k.o.Now(), k.o.Shared.load()
	if shared == k.from && !now.Before(k.set) && now.Before(k.until) {
		return k.config
	}
	k.from, k.set, k.until = shared, now, now.Add(Rotation)
	all := k.derived(now)
	if len(all) == 0 {
		k.rotate(now)
	}
	k.own = slices.DeleteFunc(slices.Clone(k.own), func(key Key) bool { return now.Sub(key.Made) >= Lifetime })
	for _, key := range k.own {
		all = append(all, key.Key)
		k.setBefore(key.Made.Add(Lifetime), now)
	}
	k.config.SetSessionTicketKeys(all)
	return k.config
}

// setBefore makes Config set the keys again at a time in the future.
func (k *Keys) setBefore(t, now time.Time) {
	if t.After(now) && t.Before(k.until) {
		k.until = t
	}
}

// rotate makes a new own key if the newest is too old.
func (k *Keys) rotate(now time.Time) {
	if len(k.own) == 0 || now.Sub(k.own[0].Made) >= Rotation {
		key := Key{Made: now}
		rand.Read(key.Key[:])
		k.own = append([]Key{key}, k.own...)
	}
	k.setBefore(k.own[0].Made.Add(Rotation), now)
}

// derived returns the keys of the shared secrets that have not expired. The first one
// encrypts: it is the newest that every gateway can be expected to have, or else the
// oldest.
func (k *Keys) derived(now time.Time) [][32]byte {
	if k.from == nil {
		return nil
	}
	var all [][32]byte
	encrypts := -1
	for _, s := range *k.from {
		age := now.Sub(s.made)
		if age >= Lifetime {
			continue
		}
		if k.identity == "" {
			k.identity, k.o.Identity = k.o.Identity(), nil // releases what the function refers to
		}
		key, err := s.key(k.identity)
		if err != nil { // never for these lengths; without keys, handshakes are full
			return nil
		}
		if age >= activation && encrypts < 0 {
			encrypts = len(all)
		}
		all = append(all, key)
		k.setBefore(s.made.Add(activation), now)
		k.setBefore(s.made.Add(Lifetime), now)
	}
	if len(all) == 0 {
		return nil
	}
	if encrypts < 0 {
		encrypts = len(all) - 1
	}
	first := all[encrypts]
	return append([][32]byte{first}, slices.Delete(all, encrypts, encrypts+1)...)
}

// Own returns a copy of the keys of the process.
func (k *Keys) Own() []Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.own)
}
