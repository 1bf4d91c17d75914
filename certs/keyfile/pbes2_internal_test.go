package keyfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

func marshal(t testing.TB, value any) []byte {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func algorithm(t testing.TB, oid asn1.ObjectIdentifier, params any) pkix.AlgorithmIdentifier {
	t.Helper()
	return pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: marshal(t, params)}}
}

// pbkdf2AES describes AES-256-CBC with a PBKDF2 key.
func pbkdf2AES(t testing.TB, iterations int) pkix.AlgorithmIdentifier {
	t.Helper()
	kdf := struct {
		Salt       []byte
		Iterations int
		PRF        pkix.AlgorithmIdentifier
	}{[]byte("salt"), iterations, pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256}}
	return algorithm(t, oidPBES2, pbes2Params{algorithm(t, oidPBKDF2, kdf), algorithm(t, oidAES256CBC, make([]byte, aes.BlockSize))})
}

// The cost of a key is checked before it is decrypted. Each of these keys would
// take from hours to billions of years, or more memory than exists.
func TestCostlyKeysAreRefusedAtOnce(t *testing.T) {
	aes256 := algorithm(t, oidAES256CBC, make([]byte, aes.BlockSize))
	scryptKDF := func(n, r, p int) pkix.AlgorithmIdentifier {
		return algorithm(t, oidPBES2, pbes2Params{algorithm(t, oidScrypt, scryptParams{[]byte("salt"), n, r, p, 32}), aes256})
	}
	for _, c := range []struct {
		name      string
		algorithm pkix.AlgorithmIdentifier
		want      error
	}{
		{"rounds", pbkdf2AES(t, math.MaxInt64), errDerivation},
		{"one round too many", pbkdf2AES(t, maxDerivation+1), errDerivation},
		{"no rounds", pbkdf2AES(t, 0), errDamagedKey},
		{"negative rounds", pbkdf2AES(t, -1), errDamagedKey},
		{"scrypt's memory", scryptKDF(1<<40, 8, 1), errDerivation},
		{"scrypt's blocks", scryptKDF(2, 1<<40, 1), errDerivation},
		{"scrypt's lanes", scryptKDF(1<<14, 8, 1<<40), errDerivation},
		{"the largest scrypt parameters, whose product overflows", scryptKDF(math.MaxInt64, math.MaxInt64, math.MaxInt64), errDerivation},
		{"scrypt just over the limit", scryptKDF(1<<17, 8, 1), errDerivation},
		{"scrypt with an N that is not a power of two", scryptKDF(1000, 8, 1), errDamagedKey},
		{"scrypt parameters of zero", scryptKDF(0, 0, 0), errDamagedKey},
		{"an unknown derivation function", algorithm(t, oidPBES2, pbes2Params{algorithm(t, oidData, 1), aes256}), errEncryption},
		{"an unknown cipher", algorithm(t, oidPBES2, pbes2Params{algorithm(t, oidPBKDF2, 1), algorithm(t, oidData, []byte("x"))}), errEncryption},
		{"invalid parameters", algorithm(t, oidPBES2, 1), errEncryption},
	} {
		t.Run(c.name, func(t *testing.T) {
			der := marshal(t, encryptedKey{c.algorithm, make([]byte, 32)})
			if _, encrypted, err := ParseKey(der, []byte("x"), false); !encrypted || !errors.Is(err, c.want) {
				t.Errorf("encrypted %v, error %v", encrypted, err)
			}
		})
	}
}

func TestKeysWhoseEncryptionIsDamaged(t *testing.T) {
	good := pbkdf2AES(t, 1)
	shortIV := algorithm(t, oidPBES2, pbes2Params{
		algorithm(t, oidPBKDF2, struct {
			Salt       []byte
			Iterations int
		}{[]byte("salt"), 1}),
		algorithm(t, oidAES256CBC, []byte("short")),
	})
	for name, k := range map[string]encryptedKey{
		"half a block":            {good, make([]byte, 17)},
		"no blocks":               {good, []byte{}},
		"an IV that is too short": {shortIV, make([]byte, 32)},
		"a megabyte":              {good, make([]byte, 1<<20)},
	} {
		if _, _, err := ParseKey(marshal(t, k), []byte("x"), false); !errors.Is(err, errDamagedKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// seal encrypts with the algorithm pbkdf2AES(1).
func seal(t testing.TB, plain, passphrase []byte) []byte {
	t.Helper()
	key, err := pbkdf2.Key(sha256.New, string(passphrase), []byte("salt"), 1, 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	n := aes.BlockSize - len(plain)%aes.BlockSize
	out := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(out, out)
	return out
}

// archiveOf returns an archive of encrypted parts, without a MAC.
func archiveOf(t testing.TB, algorithm pkix.AlgorithmIdentifier, contents ...[]byte) []byte {
	t.Helper()
	explicit := cbasn1.Tag(0).Constructed().ContextSpecific()
	var safes cryptobyte.Builder
	safes.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, content := range contents {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidEncryptedData)
				b.AddASN1(explicit, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1Int64(0)
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1ObjectIdentifier(oidData)
							b.AddBytes(marshal(t, algorithm))
							b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(content) })
						})
					})
				})
			})
		}
	})
	var out cryptobyte.Builder
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(3)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidData)
			b.AddASN1(explicit, func(b *cryptobyte.Builder) { b.AddASN1OctetString(safes.BytesOrPanic()) })
		})
	})
	return out.BytesOrPanic()
}

// shroudedKeyBag returns safe contents with a key bag that requires the given
// rounds.
func shroudedKeyBag(t testing.TB, iterations int) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidShroudedBag)
			b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
				b.AddBytes(marshal(t, encryptedKey{pbkdf2AES(t, iterations), make([]byte, 32)}))
			})
		})
	})
	return b.BytesOrPanic()
}

// An archive can hide an expensive key in an encrypted part. The library would
// do all the work.
// A wrong passphrase decrypts a key to garbage, which may begin like a SEQUENCE.
func TestGarbageMeansAWrongPassphrase(t *testing.T) {
	for _, c := range []struct {
		name string
		der  []byte
		want error
	}{
		{"no bytes", nil, errWrongPassphrase},
		{"another type", []byte{0x31, 3, 2, 1, 0}, errWrongPassphrase},
		{"another class", []byte{0x70, 3, 2, 1, 0}, errWrongPassphrase},
		{"more after the end", []byte{0x30, 3, 2, 1, 0, 0}, errWrongPassphrase},
		{"less than its length", []byte{0x30, 4, 2, 1, 0}, errWrongPassphrase},
		{"no version", []byte{0x30, 3, 4, 1, 0}, errWrongPassphrase},
		{"a key without content", []byte{0x30, 3, 2, 1, 0}, errDamagedKey},
		{"a key in BER", []byte{0x30, 0x80, 2, 1, 0, 0, 0}, errDamagedKey},
	} {
		if _, err := parseDecrypted(c.der); err != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestPKCS12ThatHidesItsCost(t *testing.T) {
	for _, passphrase := range []string{"", "x"} {
		data := archiveOf(t, pbkdf2AES(t, 1), seal(t, shroudedKeyBag(t, math.MaxInt64), []byte(passphrase)))
		if _, _, _, err := ParsePKCS12(data, []byte(passphrase)); !errors.Is(err, errPKCS12Hidden) {
			t.Errorf("passphrase %q: %v", passphrase, err)
		}
	}
}

func TestPKCS12ThatIsTooExpensive(t *testing.T) {
	old := func(rounds int) pkix.AlgorithmIdentifier {
		return algorithm(t, append(oidPKCS12PBE[:len(oidPKCS12PBE):len(oidPKCS12PBE)], 3), struct {
			Salt       []byte
			Iterations int
		}{[]byte("salt"), rounds})
	}
	for name, data := range map[string][]byte{
		"in one part":                   archiveOf(t, pbkdf2AES(t, math.MaxInt64), make([]byte, 32)),
		"in the sum of all parts":       archiveOf(t, pbkdf2AES(t, maxDerivation/3), make([]byte, 32), make([]byte, 32)),
		"in many parts":                 archiveOf(t, pbkdf2AES(t, maxDerivation/100), bytes.SplitAfter(bytes.Repeat([]byte{1}, 100), []byte{1})...),
		"legacy encryption":             archiveOf(t, old(math.MaxInt64), make([]byte, 32)),
		"legacy encryption, in the sum": archiveOf(t, old(maxDerivation/3), make([]byte, 32)),
	} {
		if _, _, _, err := ParsePKCS12(data, nil); !errors.Is(err, errPKCS12Derivation) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, _, err := ParsePKCS12(archiveOf(t, pbkdf2AES(t, 1), nil, nil, nil), nil); err == nil || !strings.Contains(err.Error(), "3 parts") {
		t.Errorf("three parts: %v", err)
	}
}

// Some programs write only the inner parts in BER, and Windows can sign an archive with
// a key instead of a MAC.
func TestPKCS12OfOtherForms(t *testing.T) {
	archive := func(contentType asn1.ObjectIdentifier, content []byte) []byte {
		var out cryptobyte.Builder
		out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(3)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(contentType)
				b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1OctetString(content) })
			})
		})
		return out.BytesOrPanic()
	}
	for _, c := range []struct {
		name string
		data []byte
		say  string
	}{
		{"BER inside", archive(oidData, []byte{0x30, 0x80, 0, 0}), "in BER"},
		{"signed", archive(oidSignedData, nil), "signed with a key"},
		{"encrypted contents", archive(oidEncryptedData, nil), "cannot be parsed"},
		{"empty", archive(oidData, []byte{0x30, 0}), "not supported"},
		{"damaged contents", archive(oidData, []byte("x")), "cannot be parsed"},
	} {
		if _, _, _, err := ParsePKCS12(c.data, nil); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// BenchmarkCostliest measures the most expensive file that is accepted.
func BenchmarkCostliest(b *testing.B) {
	aes256 := algorithm(b, oidAES256CBC, make([]byte, aes.BlockSize))
	for name, a := range map[string]pkix.AlgorithmIdentifier{
		"PBKDF2": pbkdf2AES(b, maxDerivation),
		"scrypt": algorithm(b, oidPBES2, pbes2Params{algorithm(b, oidScrypt, scryptParams{[]byte("salt"), 1 << 16, 8, 4, 32}), aes256}),
	} {
		der := marshal(b, encryptedKey{a, make([]byte, 32)})
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := ParseKey(der, []byte("x"), false); !errors.Is(err, errWrongPassphrase) {
					b.Fatal(err)
				}
			}
		})
	}
}
