// Go's pgx works through the gateway: with a PostgreSQL that requires mutual TLS, and
// with a server that accepts TLS from the first byte, like PostgreSQL 17.

package e2e

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// pgxPlain is plain for pgx, which does not support GSSAPI.
func pgxPlain(address string) string {
	return strings.ReplaceAll(plain(address), " gssencmode=disable", "")
}

func TestPgxThroughTheGateway(t *testing.T) {
	t.Parallel()
	a := postgresAuthority(t)
	p := startPostgres(t, a, mutualTLSOnly)
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), a.startsTLS("pg", adminv1.Starttls_STARTTLS_POSTGRES, p.addresses[0]), listener("pg", protocolTCP, "pg"))
	ctx := longContext(t)
	conn, err := pgx.Connect(ctx, pgxPlain(g.address("pg")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var sum int64
	if err := conn.QueryRow(ctx, "select sum(g) from generate_series(1, $1::int) g", 1000).Scan(&sum); err != nil || sum != 500500 {
		t.Errorf("a prepared statement: %d, %v", sum, err)
	}
	if _, err := conn.Exec(ctx, "create temp table t(a int, b text)"); err != nil {
		t.Fatal(err)
	}
	rows := make([][]any, 5000)
	for i := range rows {
		rows[i] = []any{i, "through the gateway"}
	}
	if n, err := conn.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"a", "b"}, pgx.CopyFromRows(rows)); err != nil || n != 5000 {
		t.Errorf("COPY: %d rows, %v", n, err)
	}
}

// servesDirectTLS is a minimal PostgreSQL server over TLS from the first byte. It
// accepts every user, and answers every query with an empty result.
func servesDirectTLS(c net.Conn) {
	if err := c.(*tls.Conn).Handshake(); err != nil || c.(*tls.Conn).ConnectionState().NegotiatedProtocol != "postgresql" {
		return
	}
	read := func(n int) []byte {
		buf := make([]byte, n)
		if _, err := io.ReadFull(c, buf); err != nil {
			return nil
		}
		return buf
	}
	size := read(4)
	if size == nil || read(int(binary.BigEndian.Uint32(size))-4) == nil {
		return
	}
	const ready = "Z\x00\x00\x00\x05I"
	_, _ = io.WriteString(c, "R\x00\x00\x00\x08\x00\x00\x00\x00"+ready)
	for {
		head := read(5)
		if head == nil || head[0] == 'X' {
			return
		}
		if n := int(binary.BigEndian.Uint32(head[1:])) - 4; n > 0 && read(n) == nil {
			return
		}
		_, _ = io.WriteString(c, "I\x00\x00\x00\x04"+ready)
	}
}

func TestPostgresWithTLSFromTheFirstByte(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	config := a.serverConfig(t)
	config.NextProtos = []string{"postgresql"}
	address := serveConns(t, config, servesDirectTLS)
	g := startGateway(t)
	settings := a.settings()
	settings.Alpn = []string{"postgresql"}
	front := startsTLSListener("front", adminv1.Starttls_STARTTLS_POSTGRES, "pg")
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("server", a.server), upstream("pg", settings, address), listener("pg", protocolTCP, "pg"), front)
	if r := g.probe("pg"); r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK || r.GetAlpn() != "postgresql" {
		t.Errorf("the probe: %v", r)
	}
	ctx := longContext(t)
	for name, secure := range map[string]bool{"pg": false, "front": true} {
		c, err := pgx.ParseConfig(pgxPlain(g.address(name)))
		if err != nil {
			t.Fatal(err)
		}
		c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		if secure {
			c.TLSConfig = &tls.Config{ServerName: serverName, RootCAs: pool(a.ca)}
		}
		c.ConnectTimeout = testTimeout
		conn, err := pgx.ConnectConfig(ctx, c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := conn.PgConn().Exec(ctx, "").ReadAll(); err != nil {
			t.Errorf("%s: a query: %v", name, err)
		}
		_ = conn.Close(ctx)
	}
}
