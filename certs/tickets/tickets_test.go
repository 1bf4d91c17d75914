package tickets

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

// made returns a list with a secret for each age in hours, the newest first.
func made(hours ...int) List {
	l := make(List, len(hours))
	for i, h := range hours {
		l[i] = Secret{value: [32]byte{1, byte(h)}, made: start.Add(-time.Duration(h) * time.Hour)}
	}
	return l
}

func TestAListIsRotatedEveryDayAndKeepsAWeek(t *testing.T) {
	var l List
	for hour := range 24 * 30 {
		now := start.Add(time.Duration(hour) * time.Hour)
		if due := l.Due(now); due != (hour%24 == 0) {
			t.Fatalf("hour %d: due is %t", hour, due)
		}
		if !l.Due(now) {
			continue
		}
		before := l
		l = l.Rotated(now)
		if want := min(hour/24+1, 7); len(l) != want || !l.Newest().Equal(now) {
			t.Fatalf("hour %d: %d secrets, want %d; the newest is of %v", hour, len(l), want, l.Newest())
		}
		if len(before) > 0 && l[1] != before[0] {
			t.Fatalf("hour %d: the previous secret is missing", hour)
		}
	}
}

func TestAWrongClockDoesNotStopTheRotation(t *testing.T) {
	for name, c := range map[string]struct {
		list List
		due  bool
		keep int // secrets that a rotation keeps
	}{
		"empty":                     {nil, true, 0},
		"a minute ahead":            {List{{made: start.Add(5 * time.Minute)}}, false, 1},
		"years ahead":               {List{{made: start.AddDate(70, 0, 0)}}, true, 0},
		"years ahead, and a recent": {append(List{{made: start.AddDate(70, 0, 0)}}, made(1)...), false, 1},
		"years ahead, and an older": {append(List{{made: start.AddDate(70, 0, 0)}}, made(30)...), true, 1},
		"years ago":                 {made(24 * 365), true, 0},
		"too many":                  {made(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16), false, 15},
	} {
		if got := c.list.Due(start); got != c.due {
			t.Errorf("%s: due is %t", name, got)
		}
		if got := c.list.Rotated(start); len(got) != c.keep+1 {
			t.Errorf("%s: a rotation keeps %d secrets, want %d", name, len(got)-1, c.keep)
		}
	}
}

func TestSecretsAreEncodedAndNeverPrinted(t *testing.T) {
	l := List(nil).Rotated(start.Add(-time.Hour)).Rotated(start)
	text, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseList(text)
	if err != nil || len(again) != 2 || again[0] != l[0] || again[1] != l[1] {
		t.Errorf("%v, %v", again, err)
	}
	if none, err := ParseList(nil); err != nil || none != nil {
		t.Errorf("%v, %v", none, err)
	}
	secret := l[0].value[:]
	key := Key{Key: l[0].value}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		got := fmt.Sprintf(verb, l) + fmt.Sprintf(verb, l[0]) + fmt.Sprintf(verb, key) + fmt.Sprintf(verb, []Key{key})
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), fmt.Sprint(secret[:4])[1:8]} {
			if strings.Contains(got, form) {
				t.Errorf("%s prints a secret", verb)
			}
		}
	}
	short := bytes.Replace(text, []byte(base64.StdEncoding.EncodeToString(secret)), []byte("c2hvcnQ="), 1)
	for _, damaged := range [][]byte{[]byte("{"), []byte("null "), short, []byte(`[{"Secret":300}]`), []byte(`[{"Secret":"` + base64.StdEncoding.EncodeToString(secret) + `"}]`)} {
		got, err := ParseList(damaged)
		if string(damaged) == "null " {
			if len(got) != 0 {
				t.Errorf("%q: %v", damaged, got)
			}
			continue
		}
		if err != errDamaged || got != nil {
			t.Errorf("%q: %v, %v", damaged, got, err)
		}
	}
}

// at returns Keys of a policy with the time of a clock.
func at(clock *time.Time, shared *Shared, identity string, own ...Key) *Keys {
	return New(Options{Now: func() time.Time { return *clock }, Shared: shared, Identity: func() string { return identity }, Own: own})
}

// ticket returns a ticket from keys.
func ticket(t *testing.T, k *Keys) []byte {
	t.Helper()
	session, err := tls.ParseSessionState([]byte{
		3, 4, 1, 0x13, 1, // TLS 1.3, a server's session, a suite
		0, 0, 0, 0, 0, 0, 0, 0, 1, 42, // the time and the secret
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // neither extra content nor certificates
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := k.Config().EncryptTicket(tls.ConnectionState{}, session)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func opens(t *testing.T, k *Keys, ticket []byte) bool {
	t.Helper()
	state, err := k.Config().DecryptTicket(ticket, tls.ConnectionState{})
	if err != nil {
		t.Fatal(err)
	}
	return state != nil
}

func sharing(l List) *Shared {
	s := new(Shared)
	s.Set(l)
	return s
}

func TestOnlyOnePolicyHasAKey(t *testing.T) {
	now := start
	l := made(1)
	a := ticket(t, at(&now, sharing(l), "a"))
	if !opens(t, at(&now, sharing(l), "a"), a) {
		t.Error("the same policy and secrets elsewhere do not open the ticket")
	}
	if opens(t, at(&now, sharing(l), "b"), a) {
		t.Error("another policy opens the ticket")
	}
	if opens(t, at(&now, sharing(made(2)), "a"), a) {
		t.Error("another secret opens the ticket")
	}
}

// Each gateway encrypts only with a secret that the others have by then, even if one clock
// is five minutes ahead and the other five minutes behind.
func TestTheNewestSecretEncryptsOnceAllGatewaysCanHaveIt(t *testing.T) {
	const skew = 5 * time.Minute
	before := made(24)
	for _, age := range []time.Duration{0, time.Minute, activation - 1, activation, activation + skew, time.Hour} {
		real := start.Add(age)
		after := append(List{{value: [32]byte{9}, made: start}}, before...)
		stale := at(&real, sharing(before), "a") // has not read the new secret yet
		fresh := at(&real, sharing(after), "a")
		if got := opens(t, stale, ticket(t, fresh)); got != (age < activation) {
			t.Errorf("after %v: a gateway without the new secret opens the ticket: %t", age, got)
		}
		if !opens(t, fresh, ticket(t, stale)) {
			t.Errorf("after %v: the new list does not open a ticket of the previous secret", age)
		}
		for _, left := range []time.Duration{-skew, skew} {
			here, there := real.Add(left), real.Add(-left)
			if !opens(t, at(&there, sharing(after), "a"), ticket(t, at(&here, sharing(after), "a"))) {
				t.Errorf("after %v: clocks that differ by %v do not open each other's tickets", age, 2*skew)
			}
		}
	}
	// While no secret is old enough, all gateways encrypt with the same one.
	now := start
	first := List{{value: [32]byte{1}, made: start}}
	if !opens(t, at(&now, sharing(first), "a"), ticket(t, at(&now, sharing(append(List{{value: [32]byte{2}, made: start.Add(time.Minute)}}, first...)), "a"))) {
		t.Error("the oldest of two new secrets does not encrypt")
	}
}

func TestADroppedOrExpiredSecretOpensNothing(t *testing.T) {
	now := start
	shared := sharing(made(24))
	k := at(&now, shared, "a")
	old := ticket(t, k)
	shared.Set(made(0, 24))
	if !opens(t, k, old) {
		t.Error("the previous secret does not open its ticket")
	}
	now = start.Add(time.Hour)
	recent := ticket(t, k)
	shared.Set(made(24))
	if opens(t, k, recent) || !opens(t, k, old) {
		t.Error("a dropped secret opens a ticket, or the other one does not")
	}
	shared.Set(made(0, 24))
	if !opens(t, k, recent) {
		t.Error("the secret is back, and does not open its ticket")
	}
	now = start.Add(Lifetime - time.Second)
	if opens(t, k, old) || !opens(t, k, recent) {
		t.Error("an expired secret opens a ticket, or the other one does not")
	}
	now = start.Add(Lifetime)
	if opens(t, k, recent) {
		t.Error("an expired secret opens a ticket")
	}
}

// Without usable secrets the process has keys of its own, which still decrypt later.
func TestOwnKeysCoverTheTimeWithoutSecrets(t *testing.T) {
	now := start
	shared := new(Shared)
	k := at(&now, shared, "a")
	own := ticket(t, k)
	if len(k.Own()) != 1 || opens(t, at(&now, shared, "a"), own) {
		t.Errorf("%d own keys", len(k.Own()))
	}
	if !opens(t, at(&now, shared, "a", k.Own()...), own) {
		t.Error("another process does not inherit own keys")
	}
	shared.Set(made(1))
	if opens(t, at(&now, sharing(made(1)), "a"), own) || !opens(t, k, own) {
		t.Error("an own key decrypts elsewhere, or no longer here")
	}
	derived := ticket(t, k)
	if !opens(t, at(&now, sharing(made(1)), "a"), derived) {
		t.Error("the shared secrets do not encrypt")
	}
	now = start.Add(Lifetime) // the secret and the own key have expired
	again := ticket(t, k)
	if opens(t, k, derived) || opens(t, k, own) || !opens(t, k, again) || len(k.Own()) != 1 {
		t.Errorf("after all keys expired; %d own keys", len(k.Own()))
	}
	// Own keys rotate.
	for day := range 30 {
		now = start.Add(Lifetime + time.Duration(day)*24*time.Hour)
		k.Config()
	}
	if n := len(k.Own()); n != 7 {
		t.Errorf("%d own keys after a month", n)
	}
}
