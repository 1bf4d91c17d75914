package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// errNotOpened names both causes, because the cipher does not distinguish them.
var errNotOpened = errors.New("the value was changed, or sealed for a different place")

// A Sealer seals and opens the values of one store.
type Sealer struct{ aead cipher.AEAD }

func newSealer(key []byte) (*Sealer, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	return &Sealer{aead}, nil
}

// A Place is the location of a value in a store. The bucket names the purpose, such as a
// kind of resource or the history; the key identifies the value.
type Place struct {
	Bucket, Key []byte
}

// binding encodes the place for the cipher. Bucket names contain no zero byte, so no two
// places have the same binding.
func (p Place) binding() []byte {
	return slices.Concat([]byte("drawbridge value v1\x00"), p.Bucket, []byte{0}, p.Key)
}

// Seal returns the value sealed for its place: a random nonce, and the ciphertext.
func (s *Sealer) Seal(p Place, value []byte) []byte { return sealWith(s.aead, value, p.binding()) }

// Open returns the value that was sealed for this place.
func (s *Sealer) Open(p Place, sealed []byte) ([]byte, error) {
	return openWith(s.aead, sealed, p.binding())
}

func sealWith(aead cipher.AEAD, value, binding []byte) []byte {
	out := make([]byte, aead.NonceSize(), aead.NonceSize()+len(value)+aead.Overhead())
	rand.Read(out)
	return aead.Seal(out, out, value, binding)
}

func openWith(aead cipher.AEAD, sealed, binding []byte) ([]byte, error) {
	if len(sealed) < aead.NonceSize() {
		return nil, errNotOpened
	}
	value, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], binding)
	if err != nil {
		return nil, errNotOpened
	}
	return value, nil
}
