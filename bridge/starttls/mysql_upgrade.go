package starttls

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
)

// upgradeMySQL requests TLS from the server at conn for the context's client. The
// server reads the client's capabilities only in the request for TLS, so the client is
// greeted first.
func upgradeMySQL(ctx context.Context, conn net.Conn) error {
	d := newMySQLClient(true)
	if err := run(ctx, conn, d); err != nil {
		return err
	}
	request := make([]byte, mysqlResponse)
	binary.LittleEndian.PutUint32(request, mysqlOwnCapabilities)
	binary.LittleEndian.PutUint32(request[4:], 1<<24)
	request[8] = 45 // utf8mb4
	c := ClientOf(ctx)
	if c != nil {
		if err := c.greet(ctx, d.greeting); err != nil {
			return err
		}
		copy(request, c.response)
	}
	mysqlSetSSL(request, true)
	if _, err := conn.Write(mysqlPacket(1, request)); err != nil { // the first write never blocks
		return c.Attribute(broken("the server", err))
	}
	return nil
}

// joinMySQL authenticates the context's client with the server at conn without a request
// for TLS: the connection is plaintext, or began with TLS.
func joinMySQL(ctx context.Context, conn net.Conn) error {
	c := ClientOf(ctx)
	if c.ended {
		return nil // Upgrade and Greet have done it
	}
	d := newMySQLClient(false)
	if err := run(ctx, conn, d); err != nil {
		return err
	}
	if err := c.greet(ctx, d.greeting); err != nil {
		return err
	}
	_, encrypted := conn.(*tls.Conn)
	return c.authenticate(ctx, conn, false, !encrypted)
}
