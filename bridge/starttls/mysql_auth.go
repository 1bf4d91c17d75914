package starttls

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// mysqlAuth is the authentication of a client over two connections. Each side counts
// packets from the beginning of its own connection, including a request for TLS.
type mysqlAuth struct {
	plugin   string
	scramble []byte
	secrets  mysqlSecrets
	exposed  bool // the server's connection is plaintext, and the client's is not
	stage    mysqlStage
	password []byte // kept until the server's key arrives

	toServer, toClient byte // the next sequence numbers
}

// Messages of the server during authentication.
const (
	mysqlOK     = 0x00
	mysqlMore   = 0x01 // data of the current plugin
	mysqlFactor = 0x02 // a further factor, with its plugin
	mysqlSwitch = 0xfe // a switch to another plugin
	mysqlErr    = 0xff
)

// A mysqlMove is the reaction to a message: a message to one side.
type mysqlMove struct {
	to      mysqlSide
	payload []byte
	next    mysqlSide // the side whose message is read next
}

type mysqlSide int

const (
	mysqlNoSide mysqlSide = iota // the authentication has ended
	mysqlAtServer
	mysqlAtClient
)

// maxMySQLMessages bounds the messages of an authentication.
const maxMySQLMessages = 64

// authenticate relays the authentication of the client with the server at conn, until the
// server accepts or rejects it. When authenticate returns nil, the client has received
// that decision. Asked says that the gateway has requested TLS from the server. Exposed
// says that conn is plaintext.
func (c *Client) authenticate(ctx context.Context, conn net.Conn, asked, exposed bool) error {
	a := &c.auth
	response := bytes.Clone(c.response)
	mysqlSetSSL(response, asked)
	a.toServer, a.toClient = 1, 2
	if asked {
		a.toServer++
	}
	if c.secure {
		a.toClient++
	}
	switch {
	case asked && !c.secure:
		a.secrets = mysqlKeyForClient
	case !asked && c.secure:
		a.secrets, a.exposed = mysqlKeyOfServer, exposed
	}
	err := socket.Within(ctx, c.conn, func() error {
		return socket.Within(ctx, conn, func() error { return a.relay(c, conn, response) })
	})
	c.ended = err == nil
	switch e := err.(type) {
	case nil:
		return nil
	case *mysqlClientError:
		return c.blame("the client: its authentication", e)
	case *certs.VerifyError:
		return err
	}
	return c.Attribute(broken("the server: its answer to the authentication", err))
}

// A mysqlClientError is an error on the client's side.
type mysqlClientError struct{ err error }

func (e *mysqlClientError) Error() string { return e.err.Error() }
func (e *mysqlClientError) Unwrap() error { return e.err }

// relay exchanges packets until the authentication has ended.
func (a *mysqlAuth) relay(c *Client, server net.Conn, response []byte) error {
	move := mysqlMove{mysqlAtServer, response, mysqlAtServer}
	err := a.checkPlugin(false)
	for range maxMySQLMessages {
		if err != nil {
			return a.deny(c, err)
		}
		if err = a.send(c, server, move); err != nil || move.next == mysqlNoSide {
			return err
		}
		if move.next == mysqlAtServer {
			var payload []byte
			if payload, err = readMySQL(server, a.toServer); err == nil && len(payload) == 0 {
				err = errMySQLPacket
			}
			if err != nil {
				return err
			}
			a.toServer++
			move, err = a.server(payload)
			continue
		}
		payload, bad := readMySQL(c.conn, a.toClient)
		if bad != nil {
			return &mysqlClientError{bad}
		}
		a.toClient++
		if move, bad = a.client(payload, c.key); bad != nil {
			return &mysqlClientError{bad}
		}
	}
	return fmt.Errorf("more than %d messages", maxMySQLMessages)
}

// send sends a message to its side.
func (a *mysqlAuth) send(c *Client, server net.Conn, move mysqlMove) error {
	if move.to == mysqlAtServer {
		_, err := server.Write(mysqlPacket(a.toServer, move.payload))
		a.toServer++
		return err
	}
	_, err := c.conn.Write(mysqlPacket(a.toClient, move.payload))
	a.toClient++
	if err != nil {
		return &mysqlClientError{err}
	}
	return nil
}

// deny sends the client the reason why the gateway ends its authentication, and
// returns err.
func (a *mysqlAuth) deny(c *Client, err error) error {
	if refusal, ok := err.(*certs.VerifyError); ok {
		_ = a.send(c, nil, mysqlMove{to: mysqlAtClient, payload: mysqlErrorOf(1251, "08004", refusal.Detail)}) // err is more useful than an error of the write
	}
	return err
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
