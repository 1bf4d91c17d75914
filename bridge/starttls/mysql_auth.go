package starttls

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A Key is the RSA key with which MySQL clients in plaintext encrypt their password. It
// is made when it is first needed. The zero Key is ready for use.
type Key struct {
	once    sync.Once
	private *rsa.PrivateKey
	public  []byte // in PEM
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

// mysqlAuth is the authentication of a client over two connections: the client's, in
// plaintext, and the server's, over TLS. Both sides count packets from their own
// beginning, and the server has read one more: the request for TLS.
//
// A client in plaintext encrypts its password with the server's RSA key where the
// plugin needs the password itself (caching_sha2_password, unless the server has it in
// its cache, and sha256_password). A server over TLS expects the password instead. So the
// client gets our key, and the server the password.
type mysqlAuth struct {
	plugin   string
	scramble []byte
	stage    mysqlStage

	toServer, toClient byte // the next sequence numbers
}

// A mysqlStage is what a client sends next.
type mysqlStage int

const (
	mysqlAnything mysqlStage = iota // a message for the server, whatever it is
	mysqlFull                       // caching_sha2_password: a request for the key, or the password
	mysqlSHA256                     // sha256_password: likewise
	mysqlSecret                     // the password, encrypted with our key
)

// Messages of the server during authentication.
const (
	mysqlOK     = 0x00
	mysqlMore   = 0x01 // data of the plugin
	mysqlFactor = 0x02 // the next factor, with its plugin
	mysqlSwitch = 0xfe // another plugin
	mysqlErr    = 0xff

	mysqlFastOK  = 3 // caching_sha2_password: the cache has the password
	mysqlNeedAll = 4 // it needs the password
)

// server reads a message of the server, which the client gets as it is. It returns
// whether the authentication has ended, and whether the client answers.
func (a *mysqlAuth) server(payload []byte) (ended, answers bool) {
	a.stage = mysqlAnything
	switch payload[0] {
	case mysqlOK, mysqlErr:
		return true, false
	case mysqlSwitch, mysqlFactor:
		name, data, ok := bytes.Cut(payload[1:], []byte{0})
		if ok {
			a.plugin, a.scramble = string(name), bytes.Clone(bytes.TrimSuffix(data, []byte{0}))
		}
		if strings.EqualFold(a.plugin, "sha256_password") {
			a.stage = mysqlSHA256
		}
	case mysqlMore:
		switch cache := strings.EqualFold(a.plugin, "caching_sha2_password") && len(payload) == 2; {
		case cache && payload[1] == mysqlFastOK:
			return false, false
		case cache && payload[1] == mysqlNeedAll:
			a.stage = mysqlFull
		}
	}
	return false, true
}

// client reads a message of the client. It returns what to send to the server, or else
// the answer to the client.
func (a *mysqlAuth) client(payload []byte, key *Key) (toServer, toClient []byte, err error) {
	asks := len(payload) == 1 && (a.stage == mysqlFull && payload[0] == 2 || a.stage == mysqlSHA256 && payload[0] == 1)
	if a.stage != mysqlSecret && !asks {
		return payload, nil, nil
	}
	private, public, err := key.get()
	if err != nil {
		return nil, nil, err
	}
	if asks {
		a.stage = mysqlSecret
		return nil, append([]byte{mysqlMore}, public...), nil
	}
	password, err := rsa.DecryptOAEP(sha1.New(), nil, private, payload, nil)
	if err != nil || len(a.scramble) == 0 {
		return nil, nil, errors.New("its password is not encrypted with the key that it was sent")
	}
	for i := range password {
		password[i] ^= a.scramble[i%len(a.scramble)]
	}
	return password, nil, nil
}

// maxMySQLMessages bounds the messages of an authentication, of each side.
const maxMySQLMessages = 32

// authenticate relays the authentication of the client with the server at conn, over
// TLS, until the server accepts or rejects it. When authenticate returns nil, the client
// has received that decision.
func (c *Client) authenticate(ctx context.Context, conn net.Conn) error {
	a := &c.auth
	response := bytes.Clone(c.response)
	response[1] |= mysqlSSL >> 8
	a.toServer, a.toClient = 2, 2
	err := socket.Within(ctx, c.conn, func() error {
		return socket.Within(ctx, conn, func() error { return a.relay(c, conn, response) })
	})
	if _, typed := errors.AsType[*mysqlClientError](err); typed {
		return c.blame("the client: its authentication", err)
	}
	if err != nil {
		return broken("the server: its answer to the authentication", err)
	}
	return nil
}

// A mysqlClientError is an error of the client's side.
type mysqlClientError struct{ err error }

func (e *mysqlClientError) Error() string { return e.err.Error() }
func (e *mysqlClientError) Unwrap() error { return e.err }

// relay exchanges packets until the authentication has ended.
func (a *mysqlAuth) relay(c *Client, server net.Conn, first []byte) error {
	toServer := first
	for range maxMySQLMessages {
		if _, err := server.Write(mysqlPacket(a.toServer, toServer)); err != nil {
			return err
		}
		a.toServer++
		ended, answers := false, false
		for !ended && !answers {
			payload, err := readMySQL(server, a.toServer)
			if err == nil && len(payload) == 0 {
				err = errMySQLPacket
			}
			if err != nil {
				return err
			}
			a.toServer++
			ended, answers = a.server(payload)
			if _, err := c.conn.Write(mysqlPacket(a.toClient, payload)); err != nil {
				return &mysqlClientError{err}
			}
			a.toClient++
		}
		if ended {
			return nil
		}
		var err error
		if toServer, err = a.answer(c); err != nil {
			return &mysqlClientError{err}
		}
	}
	return fmt.Errorf("more than %d messages", maxMySQLMessages)
}

// answer reads the client's messages until there is one for the server.
func (a *mysqlAuth) answer(c *Client) ([]byte, error) {
	for {
		payload, err := readMySQL(c.conn, a.toClient)
		if err != nil {
			return nil, err
		}
		a.toClient++
		toServer, toClient, err := a.client(payload, c.key)
		if err != nil || toClient == nil {
			return toServer, err
		}
		if _, err := c.conn.Write(mysqlPacket(a.toClient, toClient)); err != nil {
			return nil, err
		}
		a.toClient++
	}
}

// readMySQL reads one packet, and no byte beyond it. Its payload may be empty.
func readMySQL(conn net.Conn, sequence byte) ([]byte, error) {
	var header [mysqlHeader]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		return nil, err
	}
	n, err := mysqlSize(header[:], sequence, 0, maxMySQLAuth)
	if err != nil {
		return nil, err
	}
	payload := make([]byte, n)
	_, err = io.ReadFull(conn, payload)
	return payload, err
}
