package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/crypto/chacha20poly1305"
)

// Credential is the name of the systemd credential that holds a key.
const Credential = "drawbridge.seal-key"

// HowToMake is the command that makes a key file.
const HowToMake = "(umask 077; openssl rand -hex 32 > FILE)"

// ErrWrongKey reports that the data key was wrapped by another key.
var ErrWrongKey = errors.New("sealed with a different key")

// dataKeyPurpose prevents a wrapped data key from opening as another value.
const dataKeyPurpose = "drawbridge data key v1"

// A Key wraps the data key of a store. A key file holds its content.
type Key struct{ aead cipher.AEAD }

// Format prints no part of the key.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, "seal key") }

// ReadKey reads a key file. Only the user of this process and root may own it, and no
// other user may read it. credentials is the directory of systemd's credentials, or "".
// systemd grants access to these files by an access control list, which the file mode
// shows as group permissions.
func ReadKey(path, credentials string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	defer f.Close()
	most := os.FileMode(0o700)
	if credentials != "" && filepath.Dir(filepath.Clean(path)) == filepath.Clean(credentials) {
		most = 0o770
	}
	if err := checkMode(f, most); err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	k, err := ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("seal key: %s %w", path, err)
	}
	return k, nil
}

func checkMode(f *os.File, most os.FileMode) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&^most != 0 {
		return fmt.Errorf("%s has mode %04o: other users must not be able to read it (chmod 0600 %s)", f.Name(), mode, f.Name())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: it must belong to user %d, which runs this process, or to root", f.Name(), st.Uid, os.Geteuid())
	}
	return nil
}

// ParseKey returns the key of a key file's content: 32 bytes in hexadecimal, with or
// without a line break at the end.
func ParseKey(text []byte) (*Key, error) {
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	// The error never contains the text, which may be most of a key.
	key := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(key, text); err != nil || len(key) != chacha20poly1305.KeySize {
		return nil, fmt.Errorf("must hold 32 bytes as 64 hexadecimal digits and nothing else; make one with %s", HowToMake)
	}
	if bytes.Equal(key, make([]byte, len(key))) {
		return nil, fmt.Errorf("holds only zeros; make a key with %s", HowToMake)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	return &Key{aead}, nil
}

// NewSealer returns a Sealer with a new random data key, and the data key wrapped by k.
func (k *Key) NewSealer() (s *Sealer, wrapped []byte, err error) {
	key := make([]byte, chacha20poly1305.KeySize)
	rand.Read(key)
	if s, err = newSealer(key); err != nil {
		return nil, nil, err
	}
	return s, sealWith(k.aead, key, []byte(dataKeyPurpose)), nil
}

// Unwrap returns the Sealer of a wrapped data key. Its error is ErrWrongKey if another
// key wrapped it.
func (k *Key) Unwrap(wrapped []byte) (*Sealer, error) {
	key, err := openWith(k.aead, wrapped, []byte(dataKeyPurpose))
	if err != nil {
		return nil, ErrWrongKey
	}
	return newSealer(key)
}
