package seal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func parse(t *testing.T, digit string) *Key {
	t.Helper()
	k, err := ParseKey([]byte(strings.Repeat(digit, 64) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealerOf(t *testing.T, k *Key) (*Sealer, []byte) {
	t.Helper()
	s, wrapped, err := k.NewSealer()
	if err != nil {
		t.Fatal(err)
	}
	return s, wrapped
}

func TestAValueOpensInItsOwnPlaceOnly(t *testing.T) {
	s, _ := sealerOf(t, parse(t, "a"))
	at := func(bucket, key string) Place { return Place{[]byte(bucket), []byte(key)} }
	for _, value := range []string{"", "x", strings.Repeat("a private key ", 1000)} {
		sealed := s.Seal(at("upstreams", "a"), []byte(value))
		if len(value) > 1 && bytes.Contains(sealed, []byte("private")) {
			t.Error("the value is not sealed")
		}
		if got, err := s.Open(at("upstreams", "a"), sealed); err != nil || string(got) != value {
			t.Errorf("%q, %v", got, err)
		}
		for _, other := range []Place{at("upstreams", "b"), at("routes", "a"), at("upstreamsa", ""), at("upstream", "sa"), at("", "upstreams\x00a")} {
			if _, err := s.Open(other, sealed); err == nil {
				t.Errorf("the value opens at %q", other)
			}
		}
		for i := range min(len(sealed), 100) {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1
			if _, err := s.Open(at("upstreams", "a"), changed); err == nil {
				t.Errorf("the value opens with byte %d changed", i)
			}
			if _, err := s.Open(at("upstreams", "a"), sealed[:i]); err == nil {
				t.Errorf("the value opens when cut to %d bytes", i)
			}
		}
		if bytes.Equal(sealed, s.Seal(at("upstreams", "a"), []byte(value))) {
			t.Error("the nonce is not random")
		}
	}
}

func TestADataKeyOpensWithItsOwnKeyOnly(t *testing.T) {
	s, wrapped := sealerOf(t, parse(t, "a"))
	p := Place{[]byte("b"), []byte("k")}
	sealed := s.Seal(p, []byte("value"))
	again, err := parse(t, "a").Unwrap(wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open(p, sealed); err != nil || string(got) != "value" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := parse(t, "b").Unwrap(wrapped); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
	other, _ := sealerOf(t, parse(t, "a"))
	if _, err := other.Open(p, sealed); err == nil {
		t.Error("two stores have the same data key")
	}
	// A sealed value does not unwrap as a data key.
	if _, err := parse(t, "a").Unwrap(sealed); !errors.Is(err, ErrWrongKey) {
		t.Errorf("%v", err)
	}
}

func TestAKeyFileHoldsHexadecimalDigitsOnly(t *testing.T) {
	good := strings.Repeat("0123456789abcDEF", 4)
	for _, text := range []string{good, good + "\n", good + "\r\n"} {
		if _, err := ParseKey([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", "\n", good[:62], good + "00", good + "\n\n", " " + good, "g" + good[1:], strings.Repeat("0", 64), strings.Repeat("x", 32)} {
		_, err := ParseKey([]byte(text))
		if err == nil || !strings.Contains(err.Error(), "openssl rand -hex 32") {
			t.Errorf("%q: %v", text, err)
		} else if len(text) > 60 && strings.Contains(err.Error(), text[1:20]) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, parse(t, "a")); got != "seal key" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func TestAKeyFileIsForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, Credential)
	if err := os.WriteFile(path, []byte(strings.Repeat("a", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode        os.FileMode
		credentials string
		fault       string
	}{
		{0o600, "", ""}, {0o400, "", ""}, {0o700, "", ""},
		{0o440, "", "chmod 0600"}, {0o404, "", "chmod 0600"}, {0o620, "", "chmod 0600"},
		{0o440, dir, ""}, {0o440, dir + "/", ""}, {0o444, dir, "chmod 0600"}, {0o440, filepath.Dir(dir), "chmod 0600"},
	} {
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		k, err := ReadKey(path, c.credentials)
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || k != nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("mode %04o, credentials %q: %v", c.mode, c.credentials, err)
		}
	}
	if _, err := ReadKey(filepath.Join(dir, "none"), ""); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, 12345, -1)); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(path, ""); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("%v", err)
		}
	}
}

// A key can be read from a pipe, such as a shell creates for <(command).
func TestAKeyIsReadFromAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- os.WriteFile(path, []byte(strings.Repeat("a", 64)), 0o600) }()
	if _, err := ReadKey(path, ""); err != nil {
		t.Error(err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}
