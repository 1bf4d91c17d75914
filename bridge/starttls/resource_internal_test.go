package starttls

import (
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

// floods begin like a peer's first message, and never end it.
var floods = map[Protocol]struct{ server, client string }{
	Postgres: {"E", "\x00\x00\xff\xff\x00\x03\x00\x00user\x00"},
	SMTP:     {"220-", "NOOP "},
	LMTP:     {"220-", "NOOP "},
	IMAP:     {"* ", "a NOOP "},
	POP3:     {"+OK", "NOOP "},
	LDAP:     {"\x30\x84\x00\x00\xff\xff", "\x30\x84\x00\x00\xff\xff"},
	NNTP:     {"200 ", "NOOP "},
	Sieve:    {"\"SIEVE\" ", "NOOP "},
	MySQL:    {"\xff\x0f\x00\x00\x0a", "\xff\x3f\x01\x01"},
}

// A peer's messages before TLS cost memory and time in proportion to their bytes, in
// pieces of any size.
func TestCostOfMessagesBeforeTLS(t *testing.T) {
	for p, flood := range floods {
		for side, begin := range map[string]string{"server": flood.server, "client": flood.client} {
			for name, input := range map[string]string{
				"long lines":  strings.Repeat(begin+strings.Repeat("x", maxLine-20)+"\r\n", maxExchange/maxLine),
				"short lines": strings.Repeat(begin+"x\r\n", maxExchange/8),
				"empty lines": begin + strings.Repeat("\r\n", maxExchange/2),
				"NULs":        begin + strings.Repeat("\x00", maxExchange),
			} {
				for size, piece := range map[string]int{"byte by byte": 1, "in reads": readSize} {
					t.Run(p.String()+"/"+side+"/"+name+"/"+size, func(t *testing.T) {
						alloctest.WantCost(t, len(input), alloctest.Bound{}, func() {
							var d dialect
							switch {
							case p == MySQL && side == "client":
								d = newMySQLServer(nil, false)
							case p == MySQL:
								d = newMySQLClient(true)
							case side == "client":
								d = specs[p].server(false)
							default:
								d = specs[p].client()
							}
							d.start()
							for rest := []byte(input); len(rest) > 0; {
								n := min(piece, len(rest))
								if _, done, err := d.feed(rest[:n]); done || err != nil {
									return
								}
								rest = rest[n:]
							}
						})
					})
				}
			}
		}
	}
}
