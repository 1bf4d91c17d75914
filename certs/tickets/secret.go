package tickets

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// Rotation is the age of the newest key or secret at which a new one is made.
	Rotation = 24 * time.Hour

	// Lifetime is how long a key or secret decrypts tickets after it was made: the longest
	// lifetime of a ticket of TLS 1.3 (RFC 8446, section 4.6.1). crypto/tls has the same
	// rotation and lifetime.
	Lifetime = 7 * 24 * time.Hour

	// activation is the age at which a shared secret begins to encrypt tickets. Until then
	// the previous secret encrypts. Every gateway that reaches the store reads a new
	// secret within seconds, and clocks may differ by minutes.
	activation = 10 * time.Minute

	// maxAhead bounds how far in the future a secret may have been made, because clocks
	// differ. Without a bound, one wrong clock would stop the rotation for good.
	maxAhead = time.Hour

	// maxSecrets bounds a List.
	maxSecrets = 16
)

// A Secret is a shared value from which ticket keys are derived.
type Secret struct {
	value [32]byte
	made  time.Time
}

// Format prints no part of the secret.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "ticket secret") }

// key returns the ticket key of a policy.
func (s Secret) key(identity string) ([32]byte, error) {
	key, err := hkdf.Key(sha256.New, s.value[:], nil, "drawbridge ticket key v1\x00"+identity, len(s.value))
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(key), nil
}

// A List holds secrets, the newest first. It is immutable.
type List []Secret

// Newest returns when the newest secret was made; the zero Time for an empty list.
func (l List) Newest() time.Time {
	if len(l) == 0 {
		return time.Time{}
	}
	return l[0].made
}

// Due reports whether the list needs a new secret.
func (l List) Due(now time.Time) bool {
	kept := l.current(now)
	return len(kept) == 0 || now.Sub(kept[0].made) >= Rotation
}

// Rotated returns the list with a new secret, and without secrets that have expired.
func (l List) Rotated(now time.Time) List {
	fresh := Secret{made: now.UTC().Truncate(time.Second)}
	rand.Read(fresh.value[:])
	next := append(List{fresh}, l.current(now)...)
	next.sort()
	return next[:min(len(next), maxSecrets)]
}

// current returns the secrets that have not expired and were not made in the future.
func (l List) current(now time.Time) List {
	return slices.DeleteFunc(slices.Clone(l), func(s Secret) bool {
		age := now.Sub(s.made)
		return age >= Lifetime || age < -maxAhead
	})
}

func (l List) sort() {
	slices.SortStableFunc(l, func(a, b Secret) int { return b.made.Compare(a.made) })
}

// A stored is a Secret as JSON.
type stored struct {
	Secret []byte
	Made   time.Time
}

// Encode returns the secrets as bytes. The caller must seal them.
func (l List) Encode() ([]byte, error) {
	all := make([]stored, len(l))
	for i, s := range l {
		all[i] = stored{s.value[:], s.made}
	}
	return json.Marshal(all)
}

// errDamaged does not say what is wrong, because that could reveal a part of a secret.
var errDamaged = errors.New("the ticket secrets are damaged")

// ParseList returns the secrets that Encode encoded. Empty text has no secrets.
func ParseList(text []byte) (List, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var all []stored
	if json.Unmarshal(text, &all) != nil || len(all) > maxSecrets {
		return nil, errDamaged
	}
	l := make(List, len(all))
	for i, s := range all {
		if len(s.Secret) != len(l[i].value) || s.Made.IsZero() {
			return nil, errDamaged
		}
		l[i] = Secret{[32]byte(s.Secret), s.Made}
	}
	l.sort()
	return l, nil
}

// A Shared holds the secrets that are in force now. The zero value holds none. It may be
// used concurrently.
type Shared struct{ list atomic.Pointer[List] }

// Set replaces the secrets.
func (s *Shared) Set(l List) { s.list.Store(&l) }

// load returns a pointer that changes with each Set; nil before the first. A nil Shared
// holds nothing.
func (s *Shared) load() *List {
	if s == nil {
		return nil
	}
	return s.list.Load()
}
