package starttls

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// pgError returns an ErrorResponse.
func pgError(fields string) string {
	body := fields + "\x00\x00"
	return "E" + string(binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))) + body
}

func TestPostgresServersAnswerSSLRequest(t *testing.T) {
	fatal := pgError("SFATAL\x00C53300\x00Msorry, too many clients already")
	for name, c := range map[string]struct {
		said   []string
		reason certs.Reason
		text   string
		done   bool
	}{
		"agrees":                        {said: []string{"S"}, done: true},
		"refuses":                       {said: []string{"N"}, reason: certs.ReasonSTARTTLSRefused, text: `"N": it does not accept TLS`},
		"agrees and says more":          {said: []string{"SE"}, reason: certs.ReasonSTARTTLSInjection, text: `SSLRequest: "E"`},
		"agrees and injects a response": {said: []string{"SR\x00\x00\x00\x08\x00\x00\x00\x00"}, reason: certs.ReasonSTARTTLSInjection, text: `"R\x00`},
		"reports an error":              {said: []string{fatal}, reason: certs.ReasonSTARTTLSRefused, text: `"FATAL 53300 sorry, too many clients already"`},
		"reports an error, and more":    {said: []string{fatal + "more"}, reason: certs.ReasonSTARTTLSRefused, text: "too many clients"},
		"reports an incomplete error":   {said: []string{fatal[:20]}},
		"reports an endless error":      {said: []string{"E\x7f\xff\xff\xff" + strings.Repeat("x", 100)}, reason: certs.ReasonSTARTTLSRefused, text: "not PostgreSQL"},
		"reports an error of no length": {said: []string{"E\x00\x00\x00\x00"}, reason: certs.ReasonSTARTTLSRefused, text: "not PostgreSQL"},
		"escapes its error":             {said: []string{pgError("M\x1b[31mred\r\n")}, reason: certs.ReasonSTARTTLSRefused, text: `"\x1b[31mred\r\n"`},
		"speaks HTTP":                   {said: []string{"HTTP/1.1 400 Bad Request\r\n"}, reason: certs.ReasonSTARTTLSRefused, text: `"HTTP/1.1 400 Bad Request\r\n", which is not PostgreSQL`},
		"speaks TLS":                    {said: []string{"\x15\x03\x01\x00\x02\x02\x0a"}, reason: certs.ReasonSTARTTLSRefused, text: "not PostgreSQL"},
		"speaks a long line":            {said: []string{strings.Repeat("y", 100_000)}, reason: certs.ReasonSTARTTLSRefused, text: "more bytes)"},
	} {
		t.Run(name, func(t *testing.T) {
			ways := append([][]string{c.said}, splits(c.said[0])...)
			if c.reason == certs.ReasonSTARTTLSInjection || len(c.said[0]) > 1000 {
				ways = ways[:1] // a later byte is the TLS handshake's to reject
			}
			for _, said := range ways {
				got := play(newPostgresClient(), said...)
				if got.done != c.done || got.reason != c.reason || len(said) == 1 && !strings.Contains(got.text, c.text) || len(got.text) > 2000 {
					t.Errorf("%q: %+v", said, got)
				}
				if got.sent != "\x00\x00\x00\x08\x04\xd2\x16\x2f" {
					t.Errorf("sent %q", got.sent)
				}
			}
		})
	}
}

func FuzzPostgresClient(f *testing.F) {
	fuzzDialect(f, newPostgresClient, "S", "N", "SX", pgError("SFATAL\x00C53300\x00Mfull"), "HTTP/1.1 400\r\n", "E\xff\xff\xff\xff")
}
