package starttls

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Some plugins need the password itself: sha256_password, and caching_sha2_password
// unless the server has cached the password. A client over TLS then sends it in the
// clear, and a plaintext client encrypts it with the server's RSA key. Each side knows
// only its own connection. If only one side uses TLS, the gateway translates.

// mysqlSecrets says how the gateway translates passwords.
type mysqlSecrets int

const (
	mysqlAsSent       mysqlSecrets = iota // both sides have TLS, or neither
	mysqlKeyForClient                     // the client gets the gateway's key, and the server gets the password
	mysqlKeyOfServer                      // the client sends the password, and the server gets it encrypted with the server's key
)

// A mysqlStage says which message is read next, if passwords are translated.
type mysqlStage int

const (
	mysqlAnything mysqlStage = iota // any message for the other side
	mysqlFull                       // caching_sha2_password: a request for the key, or the password
	mysqlSHA256                     // sha256_password: a request for the key, or the password
	mysqlSecret                     // the password, encrypted with the gateway's key
	mysqlKey                        // the server's key
)

// Plugins and their messages.
const (
	mysqlNative      = "mysql_native_password"
	mysqlEd25519     = "client_ed25519"
	mysqlCachingSHA2 = "caching_sha2_password"
	mysqlSHA256Name  = "sha256_password"

	mysqlFastOK  = 3 // caching_sha2_password: the cache has the password
	mysqlNeedAll = 4 // caching_sha2_password: the server needs the password

	mysqlFullKey   = 2 // caching_sha2_password: a request for the key
	mysqlSHA256Key = 1 // sha256_password: a request for the key
)

// A Key is the RSA key with which MySQL clients in plaintext encrypt their password. It
// is generated when it is first needed. The zero Key is ready for use.
type Key struct {
	once    sync.Once
	private *rsa.PrivateKey
	public  []byte // the public key in PEM
	err     error
}

func (k *Key) get() (*rsa.PrivateKey, []byte, error) {
	k.once.Do(func() {
		if k.private, k.err = rsa.GenerateKey(rand.Reader, 2048); k.err != nil {
			return
		}
		der, err := x509.MarshalPKIXPublicKey(&k.private.PublicKey)
		k.public, k.err = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
	})
	return k.private, k.public, k.err
}

// server reads a message of the server.
func (a *mysqlAuth) server(payload []byte) (mysqlMove, error) {
	if a.stage == mysqlKey && payload[0] == mysqlMore {
		return a.encrypt(payload[1:])
	}
	a.stage = mysqlAnything
	move := mysqlMove{mysqlAtClient, payload, mysqlAtClient}
	switch payload[0] {
	case mysqlOK, mysqlErr:
		move.next = mysqlNoSide
		return move, nil
	case mysqlSwitch, mysqlFactor:
		name, data, ok := bytes.Cut(payload[1:], []byte{0})
		if !ok {
			name, data = []byte("mysql_old_password"), nil
		}
		a.plugin, a.scramble = string(name), bytes.Clone(bytes.TrimSuffix(data, []byte{0}))
		if strings.EqualFold(a.plugin, mysqlSHA256Name) {
			a.stage = mysqlSHA256
		}
		return move, a.checkPlugin(true)
	case mysqlMore:
		switch cache := strings.EqualFold(a.plugin, mysqlCachingSHA2) && len(payload) == 2; {
		case cache && payload[1] == mysqlFastOK:
			move.next = mysqlAtServer
			return move, nil
		case cache && payload[1] == mysqlNeedAll:
			a.stage = mysqlFull
			return move, nil
		}
	}
	if a.exposed {
		// The client's answer is unknown, and may be its password.
		return mysqlMove{}, errMySQLPacket
	}
	return move, nil
}

// checkPlugin returns an error if the client could answer the plugin with its password,
// and the server's connection is plaintext. Switched says that the server has named the
// plugin, so that a password for sha256_password can be encrypted.
func (a *mysqlAuth) checkPlugin(switched bool) error {
	if !a.exposed {
		return nil
	}
	switch a.plugin {
	case mysqlNative, mysqlEd25519, mysqlCachingSHA2:
		return nil
	case mysqlSHA256Name:
		if switched {
			return nil
		}
	}
	return &certs.VerifyError{
		Reason: certs.ReasonLocalConfig,
		Detail: fmt.Sprintf("the gateway's connection to the server is plaintext, and the plugin %s may send the password over it in the clear: use TLS to the server, or another plugin", quote(a.plugin)),
	}
}

// client reads a message of the client.
func (a *mysqlAuth) client(payload []byte, key *Key) (mysqlMove, error) {
	forward := mysqlMove{mysqlAtServer, payload, mysqlAtServer}
	switch a.secrets {
	case mysqlKeyForClient:
		asks := len(payload) == 1 && (a.stage == mysqlFull && payload[0] == mysqlFullKey || a.stage == mysqlSHA256 && payload[0] == mysqlSHA256Key)
		if !asks && a.stage != mysqlSecret {
			return forward, nil
		}
		private, public, err := key.get()
		if err != nil {
			return mysqlMove{}, err
		}
		if asks {
			a.stage = mysqlSecret
			return mysqlMove{mysqlAtClient, append([]byte{mysqlMore}, public...), mysqlAtClient}, nil
		}
		password, err := rsa.DecryptOAEP(sha1.New(), nil, private, payload, nil)
		if err != nil || len(a.scramble) == 0 {
			return mysqlMove{}, errors.New("its password is not encrypted with the key that it received")
		}
		return mysqlMove{mysqlAtServer, a.mask(password), mysqlAtServer}, nil
	case mysqlKeyOfServer:
		if a.stage != mysqlFull && a.stage != mysqlSHA256 || len(payload) == 0 || payload[0] == 0 {
			return forward, nil // an empty password is a zero byte
		}
		ask := byte(mysqlFullKey)
		if a.stage == mysqlSHA256 {
			ask = mysqlSHA256Key
		}
		a.stage, a.password = mysqlKey, payload
		return mysqlMove{mysqlAtServer, []byte{ask}, mysqlAtServer}, nil
	}
	return forward, nil
}

// mask combines a password with the scramble, as clients do before they encrypt it.
func (a *mysqlAuth) mask(password []byte) []byte {
	for i := range password {
		password[i] ^= a.scramble[i%len(a.scramble)]
	}
	return password
}

// maxMySQLKey bounds the bits of a server's key, and thus the time of an encryption.
const maxMySQLKey = 8 << 10

// encrypt returns the password, encrypted with the server's key.
func (a *mysqlAuth) encrypt(text []byte) (mysqlMove, error) {
	a.stage = mysqlAnything
	block, _ := pem.Decode(text)
	if block == nil || len(a.scramble) == 0 {
		return mysqlMove{}, errors.New("it sent no key to encrypt the password with")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok || key.N.BitLen() > maxMySQLKey {
		return mysqlMove{}, errors.New("it sent no RSA key to encrypt the password with")
	}
	encrypted, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, key, a.mask(a.password), nil)
	a.password = nil
	if err != nil {
		return mysqlMove{}, fmt.Errorf("its key cannot encrypt the password: %w", err)
	}
	return mysqlMove{mysqlAtServer, encrypted, mysqlAtServer}, nil
}
